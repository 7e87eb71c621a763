"""The kernels: their PyTorch references do what they should, and the Triton ones equal them.

Triton's interpreter must be chosen before Triton is imported, so those tests run in a process of their own (or, on a
machine with a GPU, here and on it).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from autoencoders import plain, residual, target

from guard.kernels import sae_clamp, sae_tap
from sae_features.clamping import clamp
from sae_features.encoding import encode
from sae_features.table import FeatureTable, union

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
#: Sums of 72 float32 products in another order.
NEARLY = {"rtol": 1e-4, "atol": 1e-4}
FIRST, SECOND = torch.arange(0, 60, 3), torch.tensor([3, 5, 95])
ROWS = torch.tensor([1, 2, 5, -1, 30, 31, 32, -1, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 0])
SLOTS = torch.tensor([0, 0, 0, 0, 2, 2, 2, 0, *[1] * 10, 2])


def _table(*, weighed: bool) -> FeatureTable:
    whole = plain(hidden=72)
    weights = torch.linspace(-1, 1, len(FIRST))
    # Weighed or not, the second is counted.
    return union([target(whole.only(FIRST), weights if weighed else None), target(whole.only(SECOND))])


def _moved(table: FeatureTable) -> FeatureTable:
    def move(value: Any) -> Any:
        return value.to(DEVICE) if isinstance(value, torch.Tensor) else value

    features = table.features
    on_device = type(features)(**{name: move(getattr(features, name)) for name in features.__dataclass_fields__})
    others = {name: move(getattr(table, name)) for name in ("member", "counts", "weights", "strength")}
    return FeatureTable(on_device, **others)


def test_the_tap_encodes_the_watched_tokens_and_counts_them() -> None:
    table, x, sums = _table(weighed=False), residual(40, 72), torch.ones(3, 2)
    activations, fired = sae_tap.tap(x, ROWS, SLOTS, table, sums)
    watched = ROWS >= 0
    torch.testing.assert_close(activations[watched], encode(table.features, x[ROWS[watched]]))
    assert not activations[~watched].any() and not fired[~watched].any()
    for column in range(2):
        expected = (activations[:, table.member[column]] > 0).any(dim=1)
        assert torch.equal(fired[:, column], expected)
        counts = [1 + int(expected[slot == SLOTS].sum()) for slot in range(3)]
        assert sums[:, column].tolist() == counts
    assert fired.any() and not fired[watched].all()


def test_with_weights_the_tap_adds_up_scores() -> None:
    table, x, sums = _table(weighed=True), residual(40, 72), torch.zeros(3, 2)
    activations, fired = sae_tap.tap(x, ROWS, SLOTS, table, sums)
    assert table.weights is not None
    says = torch.stack([activations @ table.weights[0], fired[:, 1].float()], dim=1)
    for slot in range(3):
        torch.testing.assert_close(sums[slot], says[slot == SLOTS].sum(dim=0))


def test_the_clamp_changes_flagged_requests_where_a_target_fires_and_nothing_else() -> None:
    table, x = _table(weighed=False), residual(40, 72)
    activations, fired = sae_tap.tap(x, ROWS, SLOTS, table, torch.zeros(3, 2))
    flagged = torch.tensor([[True, False], [True, True], [False, False]])
    found = x.clone()
    sae_clamp.clamp(found, ROWS, SLOTS, table, activations, fired, flagged)

    expected, whole = x.clone(), plain(hidden=72)
    for place, (row, slot) in enumerate(zip(ROWS.tolist(), SLOTS.tolist(), strict=True)):
        live = fired[place] & flagged[slot]
        ids = table.features.ids[table.member[live].any(dim=0)]
        if row >= 0 and len(ids):
            alone = whole.only(ids)
            expected[row] = clamp(alone, x[row : row + 1], encode(alone, x[row : row + 1]), strength=2.0)[0]
    torch.testing.assert_close(found, expected, **NEARLY)
    changed = (found != x).any(dim=1).nonzero().squeeze(1).tolist()
    assert changed and set(changed) <= {1, 2, 5, *range(16, 26)}


def test_a_feature_of_two_flagged_targets_is_clamped_once() -> None:
    whole = plain(hidden=72)
    shared = torch.tensor([11])
    one = target(whole.only(shared), strength=1.0)
    table, x = union([one, one]), residual(40, 72)
    rows, slots = torch.arange(1, 40), torch.zeros(39, dtype=torch.int64)
    activations, fired = sae_tap.tap(x, rows, slots, table, torch.zeros(1, 2))
    found = x.clone()
    sae_clamp.clamp(found, rows, slots, table, activations, fired, torch.ones(1, 2, dtype=torch.bool))
    torch.testing.assert_close(found[1:], clamp(whole.only(shared), x[1:], activations, strength=1.0), **NEARLY)


if INTERPRETED or DEVICE == "cuda":

    @pytest.mark.parametrize("weighed", [False, True])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
    def test_the_triton_kernels_equal_their_references(dtype: torch.dtype, weighed: bool) -> None:
        table, x = _moved(_table(weighed=weighed)), residual(40, 72).to(DEVICE, dtype)
        rows, slots = ROWS.to(DEVICE), SLOTS.to(DEVICE)
        sums = [torch.ones(3, 2, device=DEVICE) for _ in range(2)]
        activations, fired = sae_tap.tap_reference(x, rows, slots, table, sums[0])
        triton_activations, triton_fired = sae_tap.tap_triton(x, rows, slots, table, sums[1])
        torch.testing.assert_close(triton_activations, activations, **NEARLY)
        assert torch.equal(triton_fired, fired)
        torch.testing.assert_close(sums[1], sums[0], **NEARLY)

        flagged = torch.tensor([[True, False], [True, True], [False, False]], device=DEVICE)
        changed, triton_changed = x.clone(), x.clone()
        sae_clamp.clamp_reference(changed, rows, slots, table, activations, fired, flagged)
        sae_clamp.clamp_triton(triton_changed, rows, slots, table, activations, fired, flagged)
        torch.testing.assert_close(triton_changed, changed, **(NEARLY if dtype == torch.float32 else {}))
        assert torch.equal((triton_changed != x).any(dim=1), (changed != x).any(dim=1))

else:

    def test_the_triton_kernels_equal_their_references_in_tritons_interpreter() -> None:
        pytest.importorskip("triton")
        choice = ["-k", "triton_kernels_equal", "--noconftest", "-p", "no:cacheprovider"]
        tests = str(Path(__file__).parents[1])
        done = subprocess.run(
            [sys.executable, "-m", "pytest", __file__, *choice],
            env=os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": tests},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout[-3_000:]
        assert "6 passed" in done.stdout

    def test_the_triton_kernels_compile_for_a_gpu() -> None:
        """For compute capability 9.0, which needs the compiler and no GPU."""
        triton = pytest.importorskip("triton")
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource

        kinds = {"residual": "*bf16", "rows": "*i64", "slots": "*i64", "member": "*i8", "fired": "*i8"}
        kinds |= {"flagged": "*i8", "hidden": "i32", "residual_stride": "i32"}
        kinds |= {"n_rows": "i32", "n_features": "i32", "n_targets": "i32"}
        for kernel, more in ((sae_tap._tap_kernel, {"WEIGHED": True}), (sae_clamp._clamp_kernel, {})):
            constants = {"TOKENS": 16, "FEATURES": 32, "HIDDEN": 64, "TARGETS": 16, **more}
            signature = {
                name: "constexpr" if name in constants else kinds.get(name, "*fp32") for name in kernel.arg_names
            }
            compiled = triton.compile(
                ASTSource(kernel, signature, constexprs=constants), target=GPUTarget("cuda", 90, 32)
            )
            assert compiled.asm["cubin"]
            assert "tf32" not in compiled.asm["ptx"]  # ten bits are too few to compare with a threshold
