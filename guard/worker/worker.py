"""vLLM's workers with Lethe's taps: what ``lethe serve`` passes as ``--worker-cls``."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from safetensors.torch import save
from vllm.v1.worker import cpu_worker
from vllm.v1.worker.cpu_model_runner import CPUModelRunner
from vllm.v1.worker.cpu_worker import CPUWorker

from guard.worker.constraints import Constraints
from guard.worker.runner import TappedRunner
from guard.worker.taps import Taps, value_vectors


class TappedCPUModelRunner(TappedRunner, CPUModelRunner):
    """vLLM's V1 model runner for CPUs, with the taps.

    It also mends a fault of vLLM 0.32: a request with a ``seed`` whose prompt is computed in several steps ends the
    engine, because what is sampled before the prompt's end is taken back by rewinding the request's random generator,
    which only GPU generators can do. Here such a generator does not run in the first place.
    """

    _resting: dict[int, torch.Generator]

    def _sample(self, logits: torch.Tensor | None, spec_decode_metadata: Any) -> Any:
        generators = self.input_batch.generators
        unfinished = np.flatnonzero(self.discard_request_mask.np[: self.input_batch.num_reqs]).tolist()
        self._resting = {row: generators.pop(row) for row in unfinished if row in generators}
        return super()._sample(logits, spec_decode_metadata)

    def _bookkeeping_sync(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super()._bookkeeping_sync(*args, **kwargs)
        finally:
            self.input_batch.generators.update(self._resting)


class LetheCPUWorker(CPUWorker):
    """A worker that can be told, over ``collective_rpc``, to load edits, phrases, features and skills, and to hand over
    activations and verdicts."""

    def init_device(self) -> None:
        """As vLLM's, with our model runner.

        Raises:
            RuntimeError: vLLM took another runner, in which nothing would be forgotten.
        """
        with patch.object(cpu_worker, "CPUModelRunner", TappedCPUModelRunner):
            super().init_device()
        if not isinstance(self.model_runner, TappedRunner):
            raise RuntimeError("Lethe acts in vLLM's V1 model runner: set VLLM_USE_V2_MODEL_RUNNER=0")

    def lethe_load_edit(self, name: str, blob: bytes) -> None:
        """See :meth:`guard.worker.edits.EditTable.add`."""
        self._taps.edits.add(name, blob)

    def lethe_drop_edit(self, name: str) -> None:
        """See :meth:`guard.worker.edits.EditTable.discard`."""
        self._taps.edits.discard(name)

    def lethe_load_phrases(self, name: str, phrases: list[str]) -> None:
        """See :meth:`guard.worker.constraints.Constraints.load`."""
        self._constraints.load(name, phrases)

    def lethe_drop_phrases(self, name: str) -> None:
        """See :meth:`guard.worker.constraints.Constraints.drop`."""
        self._constraints.drop(name)

    def lethe_load_features(self, name: str, blob: bytes) -> None:
        """See :meth:`guard.worker.features.FeatureTaps.add`."""
        self._taps.features.add(name, blob)

    def lethe_drop_features(self, name: str) -> None:
        """See :meth:`guard.worker.features.FeatureTaps.discard`."""
        self._taps.features.discard(name)

    def lethe_load_skill(self, name: str, blob: bytes) -> None:
        """See :meth:`guard.worker.skills.SkillTaps.add`."""
        self._taps.features.skills.add(name, blob)

    def lethe_drop_skill(self, name: str) -> None:
        """See :meth:`guard.worker.skills.SkillTaps.discard`."""
        self._taps.features.skills.discard(name)

    def lethe_take_verdicts(self, tickets: list[str]) -> list[Any]:
        """See :meth:`guard.worker.ledger.Ledger.take`."""
        return list(self._taps.features.ledger.take(tickets))

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

    def lethe_value_vectors(self, layer: int, dims: list[int]) -> bytes:
        """This rank's share of the columns of a layer's ``down_proj``; see :meth:`guard.worker.taps.value_vectors`."""
        model, device, dtype = self.model_runner.get_model(), self.model_runner.device, self.model_config.dtype
        return save({"vectors": value_vectors(model, layer, dims, device, dtype)})

    @property
    def _constraints(self) -> Constraints:
        constraints: Constraints = getattr(self.model_runner, "constraints")  # noqa: B009 vLLM types the plain runner
        return constraints

    @property
    def _taps(self) -> Taps:
        taps: Taps = getattr(self.model_runner, "taps")  # noqa: B009 vLLM types the plain runner
        return taps
