"""What of Lethe runs inside vLLM's worker processes: the taps on the forward pass and what fills them.

``controls.py`` is what a request carries there; ``worker.py`` is given to vLLM as ``--worker-cls``. None of it is
imported here: the API process needs the names, and only the worker processes need what they name.
"""

from __future__ import annotations

import os
from argparse import Namespace

#: The worker classes that carry the taps, as ``--worker-cls`` takes them.
CPU_WORKER = "guard.worker.worker.LetheCPUWorker"
WORKERS = frozenset({CPU_WORKER})

#: Part of the compile cache's key, which the worker class is not: raise it when the taps change what is compiled.
COMPILE_SALT = {"lethe_taps": 1}

#: vLLM's choice of a model runner; its V1 runner is the one that has the taps.
RUNNER = "VLLM_USE_V2_MODEL_RUNNER"


def take_worker(args: Namespace) -> None:
    """Have the engine that vLLM starts from ``args`` carry the taps, in the runner that has them if none is asked for.

    Nothing else sets the variable: without the taps, the runner is whichever vLLM takes by itself.
    """
    os.environ.setdefault(RUNNER, "0")
    args.worker_cls = CPU_WORKER
    args.additional_config = {**(args.additional_config or {}), **COMPILE_SALT}
