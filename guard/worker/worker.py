"""vLLM's workers with Lethe's taps: what ``lethe serve`` passes as ``--worker-cls``."""

from __future__ import annotations

from unittest.mock import patch

from vllm.v1.worker import cpu_worker
from vllm.v1.worker.cpu_model_runner import CPUModelRunner
from vllm.v1.worker.cpu_worker import CPUWorker

from guard.worker.runner import TappedRunner
from guard.worker.taps import Taps


class TappedCPUModelRunner(TappedRunner, CPUModelRunner):
    """vLLM's V1 model runner for CPUs, with the taps."""


class LetheCPUWorker(CPUWorker):
    """A worker that can be told, over ``collective_rpc``, to load edits and to hand over captured activations."""

    def init_device(self) -> None:
        """As vLLM's, with our model runner."""
        with patch.object(cpu_worker, "CPUModelRunner", TappedCPUModelRunner):
            super().init_device()

    def lethe_load_edit(self, name: str, blob: bytes) -> None:
        """See :meth:`guard.worker.edits.EditTable.add`."""
        self._taps.edits.add(name, blob)

    def lethe_drop_edit(self, name: str) -> None:
        """See :meth:`guard.worker.edits.EditTable.discard`."""
        self._taps.edits.discard(name)

    def lethe_take_captures(self, names: list[str]) -> bytes:
        """See :meth:`guard.worker.capture.Captures.take`."""
        return self._taps.captures.take(names)

    @property
    def _taps(self) -> Taps:
        taps: Taps = getattr(self.model_runner, "taps")  # noqa: B009 vLLM types the plain runner
        return taps
