"""The part of Lethe's model runner that is the same on every platform."""

from __future__ import annotations

import logging
from typing import Any

from vllm.distributed import get_tensor_model_parallel_rank, get_tensor_model_parallel_world_size

from guard.worker.batch import stretches
from guard.worker.controls import Controls, Corruption
from guard.worker.edits import EditTable
from guard.worker.taps import Taps, install

logger = logging.getLogger(__name__)

#: For a request whose controls cannot be carried out: a prompt of which nothing is left.
_BLIND = Controls(corruption=Corruption("zero", 2**31, 0.0, 0, ((0, 2**31),)))


class TappedRunner:
    """Mix it into a subclass of vLLM's V1 model runner, before it."""

    taps: Taps
    _controls: dict[str, Controls]

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        """Load the model and put the taps in, before anything is compiled."""
        super().load_model(*args, **kwargs)  # type: ignore[misc]
        this: Any = self
        shard = (get_tensor_model_parallel_rank(), get_tensor_model_parallel_world_size())
        self._controls = {}
        self.taps = install(this.model, this.vllm_config, EditTable(shard, this.device))

    def _update_states(self, scheduler_output: Any) -> Any:
        """Learn of new requests and forget finished ones, as vLLM's own state does."""
        for request_id in scheduler_output.finished_req_ids:
            self._controls.pop(request_id, None)
        for new in scheduler_output.scheduled_new_reqs:
            controls = self._read(new.req_id, new.sampling_params)
            if controls is not None:
                self._controls[new.req_id] = controls
        return super()._update_states(scheduler_output)  # type: ignore[misc]

    def _prepare_inputs(self, scheduler_output: Any, num_scheduled_tokens: Any) -> Any:
        """The token ids of the step stand in their buffer after this; so the taps are prepared here."""
        prepared = super()._prepare_inputs(scheduler_output, num_scheduled_tokens)  # type: ignore[misc]
        this: Any = self
        if self._controls:
            mine = stretches(
                self._controls,
                this.input_batch.req_ids,
                scheduler_output.num_scheduled_tokens,
                {request_id: this.requests[request_id].num_computed_tokens for request_id in self._controls},
            )
            self.taps.begin(mine, this.input_ids.gpu, self._answer)
        return prepared

    def execute_model(self, *args: Any, **kwargs: Any) -> Any:
        """One step; the taps are idle again after it, so that no dummy run meets them."""
        try:
            return super().execute_model(*args, **kwargs)  # type: ignore[misc]
        finally:
            self.taps.end()

    def _read(self, request_id: str, params: Any) -> Controls | None:
        controls = Controls.from_wire(params.extra_args) if params is not None else None
        if controls is not None and (missing := [name for name in controls.edits if name not in self.taps.edits]):
            logger.error("Request %s asks for edits that are not loaded (%s); blinding it", request_id, missing)
            return _BLIND
        return controls

    def _answer(self, request_id: str) -> tuple[list[int], int]:
        state = getattr(self, "requests")[request_id]  # noqa: B009 the mixin's base is vLLM's runner
        return state.output_token_ids, state.num_prompt_tokens
