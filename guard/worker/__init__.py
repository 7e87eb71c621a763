"""What of Lethe runs inside vLLM's worker processes: the taps on the forward pass and what fills them.

``controls.py`` is what a request carries there; ``worker.py`` is given to vLLM as ``--worker-cls``. Nothing is
imported here: the API process needs the names, and only the worker processes need what they name.
"""

#: The worker classes that carry the taps, as ``--worker-cls`` takes them.
CPU_WORKER = "guard.worker.worker.LetheCPUWorker"
WORKERS = frozenset({CPU_WORKER})

#: Part of the compile cache's key, which the worker class is not: raise it when the taps change what is compiled.
COMPILE_SALT = {"lethe_taps": 1}
