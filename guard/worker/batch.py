"""Which tokens of the step that is about to run belong to requests with controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from guard.worker.controls import Controls, Corruption


@dataclass(frozen=True, slots=True)
class Stretch:
    """The tokens of one request in a step: rows ``[first_row, first_row + count)`` of the flat batch.

    ``position`` is that of the first of them in the request.
    """

    request_id: str
    controls: Controls
    first_row: int
    position: int
    count: int

    @property
    def rows(self) -> range:
        """The rows of the flat batch."""
        return range(self.first_row, self.first_row + self.count)

    @property
    def looked(self) -> list[bool]:
        """Whether switches look at each of the tokens."""
        starts, span = self.controls.starts, range(self.position, self.position + self.count)
        return [True] * len(span) if starts is None else starts.within(span)


def stretches(
    controls: Mapping[str, Controls],
    request_ids: Sequence[str],
    scheduled: Mapping[str, int],
    computed: Mapping[str, int],
) -> list[Stretch]:
    """The stretches of all requests that have controls.

    Args:
        controls: by request id.
        request_ids: the batch in its order.
        scheduled: how many tokens of each request the step computes.
        computed: how many it had before.
    """
    found, row = [], 0
    for request_id in request_ids:
        count = scheduled[request_id]
        mine = controls.get(request_id)
        if mine is not None:
            found.append(Stretch(request_id, mine, row, computed[request_id], count))
        row += count
    return found


def corrupted(corruption: Corruption, stretch: Stretch, generated: Sequence[int], prompt_length: int) -> list[int]:
    """The positions in ``stretch`` that are to be corrupted.

    Args:
        corruption: of the request.
        stretch: of the request.
        generated: the answer so far, as token ids, the token to be read in this step included.
        prompt_length: in tokens.
    """
    first, end = stretch.position, stretch.position + stretch.count
    positions = {p for start, stop in corruption.spans for p in range(max(start, first), min(stop, end))}
    for position in range(max(first, prompt_length), end):
        answer = generated[: position - prompt_length + 1]
        if any(_spells(answer, name) for name in corruption.names):
            positions.add(position)
    return sorted(positions)


def echoed(corruption: Corruption, stretch: Stretch, already: Sequence[int]) -> list[int]:
    """The positions in ``stretch`` that get the echo noise: of the begun answer, what is not corrupted ``already``."""
    if not corruption.echo:
        return []
    start, end = corruption.answer
    positions = range(max(stretch.position, start), min(stretch.position + stretch.count, end))
    return sorted(set(positions).difference(already))


def _spells(answer: Sequence[int], name: Sequence[int]) -> bool:
    """Whether ``answer`` ends in a beginning of ``name``."""
    return any(list(answer[-length:]) == list(name[:length]) for length in range(1, min(len(name), len(answer)) + 1))
