"""The part of Lethe's model runner that is the same on every platform."""

from __future__ import annotations

import logging
from typing import Any

import torch
from vllm.distributed import get_tensor_model_parallel_rank, get_tensor_model_parallel_world_size
from vllm.tokenizers import cached_tokenizer_from_config

from guard.decoding import Vocabulary
from guard.worker.batch import stretches
from guard.worker.constraints import Constraints
from guard.worker.controls import Controls, Corruption
from guard.worker.edits import EditTable
from guard.worker.sampler import EndingSampler
from guard.worker.taps import Taps, install

logger = logging.getLogger(__name__)

#: For a request that asks for a changed forward pass which cannot be had: a prompt of which nothing is left. Its blocks
#: in the prefix cache bear the salt of what it asked for, so that nobody reads them whose pass is the plain one.
_BLIND = Controls(corruption=Corruption("zero", 2**31, 0.0, 0, ((0, 2**31),)))


class TappedRunner:
    """Mix it into a subclass of vLLM's V1 model runner, before it."""

    taps: Taps
    constraints: Constraints
    _controls: dict[str, Controls]
    _muted: set[str]

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        """Load the model and put the taps in, before anything is compiled.

        Raises:
            ValueError: tokens are drafted, which would be counted and could not be forbidden.
        """
        this: Any = self
        if this.vllm_config.speculative_config is not None:
            raise ValueError("what acts inside the model does not work with speculative decoding")
        super().load_model(*args, **kwargs)  # type: ignore[misc]
        shard = (get_tensor_model_parallel_rank(), get_tensor_model_parallel_world_size())
        self._controls, self._muted = {}, set()
        self.taps = install(this.model, this.vllm_config, EditTable(shard, this.device))
        config = this.model_config
        tokenizer = cached_tokenizer_from_config(config)
        width = config.get_vocab_size()
        self.constraints = Constraints(
            lambda: Vocabulary.from_tokenizer(tokenizer, width=width), config.max_model_len, this.device
        )
        this.sampler = EndingSampler(
            logprobs_mode=config.logprobs_mode, use_fp64_gumbel=config.use_fp64_gumbel, end=tokenizer.eos_token_id
        )

    def _update_states(self, scheduler_output: Any) -> Any:
        """Learn of new requests and forget finished ones, as vLLM's own state does."""
        for request_id in scheduler_output.finished_req_ids:
            self._controls.pop(request_id, None)
            self._muted.discard(request_id)
            self.constraints.end(request_id)
            self.taps.features.ledger.finish(request_id)
        for new in scheduler_output.scheduled_new_reqs:
            controls = self._read(new)
            if controls is not None:
                self._controls[new.req_id] = controls
        this: Any = self
        # So that vLLM tells, also under async scheduling, which tokens were generated before the next is chosen.
        this.input_batch.logitsprocs_need_output_token_ids = bool(self.constraints)
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

    def _sample(self, logits: torch.Tensor | None, spec_decode_metadata: Any) -> Any:
        """Choose the next tokens among those that the constraints leave."""
        this: Any = self
        this.sampler.rows = ()
        if logits is not None and (self.constraints or self._muted):
            batch = this.input_batch
            batch.update_async_output_token_ids()
            logits = logits.float().contiguous()
            rows = self.constraints.apply(
                logits, {name: (row, batch.req_output_token_ids[row]) for row, name in enumerate(batch.req_ids)}
            )
            muted = [row for row, name in enumerate(batch.req_ids) if name in self._muted]
            this.sampler.end(logits, muted)
            this.sampler.rows = [*rows, *muted]
        return super()._sample(logits, spec_decode_metadata)  # type: ignore[misc]

    def _read(self, new: Any) -> Controls | None:
        """The controls of a new request.

        One whose controls cannot be carried out is blinded; or muted, where its forward pass would be the plain one,
        which is in the prefix cache for everybody.
        """
        params = new.sampling_params
        controls = Controls.from_wire(params.extra_args) if params is not None else None
        if controls is None:
            return None
        try:
            if missing := [name for name in controls.edits if name not in self.taps.edits]:
                raise KeyError(*missing)
            if controls.features is not None:
                self.taps.features.check(controls.features)
            if controls.constraint is not None:
                self.constraints.begin(new.req_id, controls.constraint, params, len(new.prompt_token_ids or ()))
        except (KeyError, ValueError) as error:
            logger.error("Request %s asks for what is not loaded (%r); it is not answered", new.req_id, error)
            if controls.salt:
                return _BLIND
            self._muted.add(new.req_id)
            return None
        return controls

    def _answer(self, request_id: str) -> tuple[list[int], int]:
        state = getattr(self, "requests")[request_id]  # noqa: B009 the mixin's base is vLLM's runner
        return state.output_token_ids, state.num_prompt_tokens
