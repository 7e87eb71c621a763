"""Artifacts: what is stored is what was fitted, for this model and no other."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch
from sqlalchemy.exc import OperationalError

from guard.artifacts import Artifact, ArtifactError, Artifacts
from guard.store import Store
from guard.types import ForgetTarget, TargetSpec


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(f"sqlite:///{tmp_path / 'lethe.db'}")


def _target(store: Store) -> ForgetTarget:
    with store.write() as writer:
        return writer.create_target(TargetSpec(name="Somebody"))


def _artifact(model: str = "model") -> Artifact:
    return Artifact("lunar", model, {"layer": 3}, {"forget": 0.1}, {"3.key": torch.ones(1, 4)})


def test_bytes_give_the_artifact_back() -> None:
    again = Artifact.from_bytes(_artifact().to_bytes(), "model")
    assert (again.intervention, again.settings, again.report) == ("lunar", {"layer": 3}, {"forget": 0.1})
    assert torch.equal(again.tensors["3.key"], torch.ones(1, 4))
    assert Artifact.from_bytes(Artifact("eco", "model").to_bytes(), "model").tensors == {}


@pytest.mark.parametrize("blob", [b"", b"nonsense", _artifact("another").to_bytes(), _artifact().to_bytes()[:-4]])
def test_damaged_and_foreign_bytes_are_refused(blob: bytes) -> None:
    with pytest.raises(ArtifactError):
        Artifact.from_bytes(blob, "model")


def test_what_one_process_keeps_another_finds(store: Store) -> None:
    target = _target(store)
    mine, theirs, other_model = Artifacts(store, "model"), Artifacts(store, "model"), Artifacts(store, "other")

    async def scenario() -> None:
        assert await theirs.get(target, "lunar") is None
        await mine.put(target, _artifact())
        found = await theirs.get(target, "lunar")
        assert found is not None and found.settings == {"layer": 3}
        assert await theirs.get(target, "rocr") is None
        assert await other_model.get(target, "lunar") is None
        with pytest.raises(ArtifactError):
            await other_model.put(target, _artifact())

    asyncio.run(scenario())


def test_a_changed_target_has_no_artifact_until_it_is_compiled_again(store: Store) -> None:
    target = _target(store)
    artifacts = Artifacts(store, "model")

    async def scenario() -> None:
        await artifacts.put(target, _artifact())
        with store.write() as writer:
            changed = writer.update_target(target.id, TargetSpec(name="Somebody", aliases=("Else",)))
        assert await artifacts.get(changed, "lunar") is None

    asyncio.run(scenario())


def test_what_another_process_fits_anew_comes_into_force(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    target = _target(store)
    mine, theirs = Artifacts(store, "model"), Artifacts(store, "model")

    async def layer() -> int:
        found = await theirs.get(target, "lunar")
        assert found is not None
        return int(found.settings["layer"])

    async def scenario() -> None:
        await mine.put(target, _artifact())
        assert await layer() == 3
        await mine.put(target, Artifact("lunar", "model", {"layer": 5}))
        assert await layer() == 3  # for a while
        monkeypatch.setattr("guard.artifacts.LOOK_AGAIN", 0.0)
        with monkeypatch.context() as away:
            away.setattr(store, "versions", _raise)
            assert await layer() == 3
        with monkeypatch.context() as away:
            away.setattr(store, "versioned", _raise)  # between the look and the reading
            with pytest.raises(OperationalError):
                await layer()
        assert await layer() == 5
        await theirs.put(target, Artifact("lunar", "model", {"layer": 7}))
        assert await layer() == 7

    asyncio.run(scenario())


def _raise(*_: object) -> None:
    raise OperationalError("select", {}, Exception("the database is away"))
