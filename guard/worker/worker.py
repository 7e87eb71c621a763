"""vLLM's workers with Lethe's taps: what ``lethe serve`` passes as ``--worker-cls``."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from safetensors.torch import save
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

    def lethe_unembedding(self, token: int) -> bytes | None:
        """The row of the output head for ``token``, through the final norm's weight; None if another rank holds it."""
        model: Any = self.model_runner.get_model()
        head = model.lm_head
        row = token - head.shard_indices.org_vocab_start_index
        if not 0 <= row < head.shard_indices.num_org_elements:
            return None
        return save({"direction": (head.weight[row].float() * model.model.norm.weight.float()).contiguous()})

    @property
    def _taps(self) -> Taps:
        taps: Taps = getattr(self.model_runner, "taps")  # noqa: B009 vLLM types the plain runner
        return taps
