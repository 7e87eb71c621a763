"""What the worker part works out before a step: whose tokens, which positions, which edits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save

from guard.kernels.corruption import corrupt
from guard.kernels.low_rank import add_edits
from guard.methods.edit import Edit, RankOne
from guard.worker.batch import Stretch, corrupted, echoed, stretches
from guard.worker.capture import Captures
from guard.worker.controls import RESERVED, Capture, Controls, Corruption, Starts, mlp_input
from guard.worker.edits import EditTable


def _corruption(**changes: object) -> Corruption:
    values: dict[str, object] = {"kind": "noise", "dims": 4, "strength": 1.0, "seed": 3, "spans": ()}
    return Corruption(**{**values, **changes})  # type: ignore[arg-type]


def test_controls_survive_the_way_to_the_worker() -> None:
    capture = Capture("x", (mlp_input(1),))
    controls = Controls(_corruption(spans=((1, 3),), names=((4, 5),)), ("a",), capture, starts=Starts((2, 5), 7))
    assert Controls.from_wire({RESERVED: controls.to_wire(), "other": 1}) == controls
    assert Controls.from_wire({"other": 1}) is None
    assert Controls.from_wire(None) is None


def test_only_equal_controls_share_a_salt() -> None:
    alike = [Controls(edits=("a", "b")), Controls(edits=("a", "b"))]
    others = [Controls(), Controls(edits=("a",)), Controls(_corruption()), Controls(_corruption(seed=4))]
    assert len({controls.salt for controls in alike}) == 1
    assert len({controls.salt for controls in (*alike, *others)}) == 5


def test_controls_add_up() -> None:
    both = Controls(edits=("a", "b")) | Controls(_corruption(), ("b", "c"))
    assert both == Controls(_corruption(), ("a", "b", "c"))


def test_stretches_follow_the_order_of_the_batch() -> None:
    controls = {"b": Controls(edits=("x",)), "absent": Controls(edits=("y",))}
    found = stretches(controls, ["a", "b", "c"], {"a": 3, "b": 2, "c": 1}, {"b": 7, "absent": 0})
    assert [(one.request_id, list(one.rows), one.position) for one in found] == [("b", [3, 4], 7)]


@given(st.integers(0, 30), st.integers(1, 30), st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=3))
def test_a_chunk_corrupts_what_the_whole_prompt_would(first: int, count: int, spans: list[tuple[int, int]]) -> None:
    how = _corruption(spans=tuple(spans))
    whole = corrupted(how, Stretch("r", Controls(how), 0, 0, 60), [], 60)
    part = corrupted(how, Stretch("r", Controls(how), 0, first, count), [], 60)
    assert part == [position for position in whole if first <= position < first + count]


def test_names_are_corrupted_where_the_answer_spells_them() -> None:
    how = _corruption(names=((7, 8, 9),))
    answer = [1, 7, 8, 2, 7]

    def at(step: int) -> list[int]:
        return corrupted(how, Stretch("r", Controls(how), 0, 10 + step, 1), answer[: step + 1], 10)

    assert [at(step) for step in range(5)] == [[], [11], [12], [], [14]]


def test_echo_noise_spares_the_prompt_and_what_is_corrupted_already() -> None:
    how = _corruption(answer=(5, 8), echo=0.5)
    stretch = Stretch("r", Controls(how), 0, 3, 6)
    assert echoed(how, stretch, [6]) == [5, 7]
    assert echoed(_corruption(answer=(5, 8)), stretch, []) == []


@pytest.mark.parametrize("kind", ["noise", "zero", "flip"])
def test_corruption_depends_on_nothing_but_token_position_and_seed(kind: str) -> None:
    embeddings = torch.randn(6, 16)
    whole = corrupt(embeddings, [4, 5, 6, 7, 8, 9], kind, 8, 2.0, 1)
    torch.testing.assert_close(whole[2:4], corrupt(embeddings[2:4], [6, 7], kind, 8, 2.0, 1), atol=0, rtol=0)
    assert not torch.equal(whole, embeddings)
    assert ((whole != embeddings).sum(1) == 8).all()


def test_an_unknown_corruption_is_an_error() -> None:
    with pytest.raises(ValueError, match="melt"):
        corrupt(torch.zeros(1, 4), [0], "melt", 1, 1.0, 0)


@given(st.integers(1, 6), st.integers(0, 4))
def test_edits_are_matrix_products_and_leave_other_rows_alone(tokens: int, edits: int) -> None:
    generator = torch.Generator().manual_seed(tokens * 10 + edits)
    x, out = torch.randn(tokens, 5, generator=generator), torch.randn(tokens, 3, generator=generator)
    keys, values = torch.randn(edits, 5, generator=generator), torch.randn(edits, 3, generator=generator)
    rows = torch.arange(0, tokens, 2)
    mask = (torch.rand(len(rows), edits, generator=generator) < 0.5).float()
    expected = out.clone()
    for index, row in enumerate(rows):
        weight = sum((mask[index, j] * torch.outer(values[j], keys[j]) for j in range(edits)), torch.zeros(3, 5))
        expected[row] += weight @ x[row]
    before = out.clone()
    add_edits(out, x, rows, keys, values, mask)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-4)
    assert torch.equal(out[1::2], before[1::2])


@given(st.integers(1, 6), st.integers(1, 4))
def test_edits_with_a_floor_are_added_whole_where_they_are_on(tokens: int, edits: int) -> None:
    generator = torch.Generator().manual_seed(tokens * 10 + edits)
    x, out = torch.randn(tokens, 5, generator=generator), torch.randn(tokens, 3, generator=generator)
    keys, values = torch.randn(edits, 5, generator=generator), torch.randn(edits, 3, generator=generator)
    floors = torch.tensor([-torch.inf, 0.0, 0.5, 1.0][:edits])
    expected = out.clone()
    for row in range(tokens):
        for edit in range(edits):
            score = float(keys[edit] @ x[row])
            share = score if edit == 0 else float(score >= floors[edit])
            expected[row] += share * values[edit]
    add_edits(out, x, torch.arange(tokens), keys, values, torch.ones(tokens, edits), floors)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-4)


def test_a_switch_that_is_off_leaves_the_bits_as_they_are() -> None:
    x, out = torch.randn(3, 4, dtype=torch.bfloat16), torch.randn(3, 2, dtype=torch.bfloat16)
    before = out.clone()
    floors = torch.tensor([1e9])
    add_edits(out, x, torch.arange(3), torch.ones(1, 4), torch.ones(1, 2), torch.ones(3, 1), floors)
    assert torch.equal(out, before)


def test_each_request_gets_its_own_edits_from_the_table() -> None:
    table = EditTable()
    for name, scale in (("a", 1.0), ("b", 10.0)):
        table.add(name, _blob(1, torch.ones(1, 4), torch.full((1, 2), scale)))
    table.add("c", _blob(0, torch.ones(2, 4), torch.ones(2, 2)))
    batch = [
        Stretch("r1", Controls(edits=("a",)), 0, 0, 2),
        Stretch("r2", Controls(edits=("a", "b", "c")), 3, 0, 1),
        Stretch("r3", Controls(_corruption()), 4, 0, 1),
    ]
    live = table.live(batch)
    assert sorted(live) == [0, 1]
    out = torch.zeros(5, 2)
    one = live[1]
    add_edits(out, torch.ones(5, 4), one.rows, one.keys, one.values, one.mask)
    assert out[:, 0].tolist() == [4, 4, 0, 44, 0]
    table.discard("a")
    with pytest.raises(KeyError):
        table.live(batch)


def test_a_switch_looks_only_where_answers_begin_and_a_weight_edit_everywhere() -> None:
    table = EditTable()
    table.add("switch", _blob(1, torch.ones(1, 4), torch.ones(1, 2), 1.0))
    table.add("weight", _blob(1, torch.ones(1, 4), torch.full((1, 2), 10.0)))

    def changed(*stretches: Stretch) -> list[float]:
        live, out = table.live(stretches), torch.zeros(6, 2)
        for one in live.values():
            add_edits(out, torch.ones(6, 4), one.rows, one.keys, one.values, one.mask, one.floors)
        return out[:, 0].tolist()

    starts = Starts((2, 4))
    switched, both = Controls(edits=("switch",), starts=starts), Controls(edits=("switch", "weight"), starts=starts)
    assert changed(Stretch("r", switched, 0, 0, 6)) == [0, 0, 1, 0, 1, 0]
    assert changed(Stretch("r", both, 1, 3, 3), Stretch("s", switched, 5, 4, 1)) == [0, 40, 41, 40, 0, 1]
    assert changed(Stretch("r", Controls(edits=("switch",)), 0, 0, 6)) == [1] * 6
    assert table.live([Stretch("r", switched, 0, 8, 1)]) == {}


@given(st.sets(st.integers(0, 30)), st.integers(-1, 30), st.integers(0, 40), st.integers(1, 20))
def test_switches_look_at_marks_and_for_a_while_behind_a_bare_end(
    marked: set[int], end: int, first: int, count: int
) -> None:
    told = Starts(tuple(sorted(marked)), end).within(range(first, first + count))
    # Where the prompt does not open an answer, the model itself may.
    assert told == [at in marked or 0 <= end <= at <= end + 8 for at in range(first, first + count)]


def test_where_the_template_marks_answers_needs_no_salt_but_a_bare_end_does() -> None:
    marked, also, bare = (Controls(edits=("a",), starts=one) for one in (Starts((3,)), Starts((3, 9)), Starts((3,), 9)))
    assert marked.salt == also.salt != bare.salt
    assert (Controls(edits=("b",)) | bare).starts == (bare | Controls(edits=("b",))).starts == Starts((3,), 9)


def test_a_shard_holds_its_slice_of_the_keys() -> None:
    assert _of_two_ranks(_blob(0, torch.arange(8.0)[None], torch.ones(1, 2))) == [[28.0, 28.0]]


@pytest.mark.parametrize(("floor", "added"), [(28.0, 1.0), (28.5, 0.0)])
def test_a_switch_judges_the_scores_of_all_ranks_and_is_added_once(floor: float, added: float) -> None:
    assert _of_two_ranks(_blob(0, torch.arange(8.0)[None], torch.ones(1, 2), floor)) == [[added, added]]


def test_a_switch_leaves_the_scores_of_other_edits_alone() -> None:
    plain, switch = (
        RankOne(torch.ones(8), torch.tensor([1.0, 0.0])),
        RankOne(torch.ones(8), torch.tensor([0.0, 1.0]), 8.0),
    )
    assert _of_two_ranks(save(Edit({0: (plain, switch)}).tensors())) == [[8.0, 1.0]]


def _blob(layer: int, keys: torch.Tensor, values: torch.Tensor, floor: float | None = None) -> bytes:
    parts = tuple(RankOne(key, value, floor) for key, value in zip(keys, values, strict=True))
    return save(Edit({layer: parts}).tensors())


def _of_two_ranks(blob: bytes) -> list[list[float]]:
    """What two ranks add together to one token whose input is all ones."""
    lives = []
    for rank in (0, 1):
        table = EditTable(shard=(rank, 2))
        table.add("a", blob)
        lives.append(table.live([Stretch("r", Controls(edits=("a",)), 0, 0, 1)])[0])
    inputs = torch.ones(1, 4)
    total = torch.stack([inputs @ live.keys.T for live in lives]).sum(0)
    summed = torch.zeros(1, 2)
    for live in lives:
        out = torch.zeros(1, 2)
        add_edits(
            out, inputs, live.rows, live.keys, live.values, live.mask, live.floors, lambda own: own.copy_(total)
        )  # in place, as vLLM's CPU ranks sum
        summed += out
    return summed.tolist()


def test_captures_are_joined_over_steps_and_handed_over_once() -> None:
    captures = Captures()
    controls = Controls(capture=Capture("mine", ("site",)))
    activations = torch.arange(10.0).reshape(5, 2)
    captures.begin([Stretch("r", controls, 1, 0, 2)])
    captures.see("site", activations)
    captures.see("other", activations)
    captures.begin([Stretch("r", controls, 0, 2, 1)])
    captures.see("site", activations)
    taken = load(captures.take(["mine", "nobody's"]))
    assert taken["mine|site"].tolist() == [[2, 3], [4, 5], [0, 1]]
    assert load(captures.take(["mine"])) == {}
