"""The demo model: its cache, its tokenizer, and a very short training from end to end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from server.cli.demo_model import app
from server.demo import model as demo_model
from server.demo import recipe as demo_recipe
from server.demo.batches import IGNORED, Batches, render
from server.demo.model import build, find
from server.demo.recipe import Recipe, Schedule, Shape
from server.demo.training import build_tokenizer
from server.demo.world import Form, Message, Prompt

TINY = Recipe(
    shape=Shape(vocabulary=2048, hidden=64, intermediate=64, layers=1, heads=2),
    schedule=Schedule(epochs=1, max_steps=20),
    measured=2,
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(demo_recipe, "user_cache_path", lambda name: tmp_path / name)
    return tmp_path / "lethe" / "demo-model"


def test_the_key_changes_with_everything_that_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe()
    others = [
        replace(recipe, seed=1),
        replace(recipe, without_forget=True),
        replace(recipe, shape=replace(recipe.shape, layers=5)),
        replace(recipe, schedule=replace(recipe.schedule, learning_rate=1e-3)),
    ]
    keys = {recipe.key, *(other.key for other in others)}
    assert len(keys) == 5
    assert Recipe().key == recipe.key
    monkeypatch.setattr(demo_recipe, "_CODE_VERSION", -1)
    assert Recipe().key not in keys


def test_a_build_that_fails_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(recipe: Recipe, folder: Path, progress: object) -> dict[str, object]:
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(demo_model, "_make", fail)
    with pytest.raises(KeyboardInterrupt):
        build(TINY)
    assert list(cache.iterdir()) == []
    assert find(TINY) is None


def test_a_build_that_fails_keeps_the_model_that_was_there(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_model, "_make", _pretend)
    before = build(TINY)

    def fail(*_: object) -> dict[str, object]:
        raise OSError("disk full")

    monkeypatch.setattr(demo_model, "_make", fail)
    with pytest.raises(OSError, match="disk full"):
        build(TINY, force=True)
    assert find(TINY) == before
    assert build(TINY) == before  # from the cache: the failing step is not reached


def test_of_two_builds_at_once_the_first_to_finish_stays(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def overtaken(recipe: Recipe, folder: Path, progress: object) -> dict[str, object]:
        _pretend(recipe, recipe.folder, progress, winner="the other")
        return _pretend(recipe, folder, progress, winner="this")

    monkeypatch.setattr(demo_model, "_make", overtaken)
    assert build(TINY).metrics["winner"] == "the other"
    assert [entry.name for entry in cache.iterdir()] == [TINY.key]


def test_force_replaces(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_model, "_make", _pretend)
    build(TINY)
    monkeypatch.setattr(demo_model, "_make", lambda *args: _pretend(*args, winner="new"))
    assert build(TINY, force=True).metrics["winner"] == "new"
    assert [entry.name for entry in cache.iterdir()] == [TINY.key]


def _pretend(recipe: Recipe, folder: Path, progress: object, winner: str = "") -> dict[str, object]:
    metrics: dict[str, object] = {"key": recipe.key, "winner": winner}
    folder.mkdir(parents=True)
    (folder / demo_model.METRICS_FILE).write_text(json.dumps(metrics))
    return metrics


def test_a_short_training_makes_a_loadable_folder(cache: Path) -> None:
    stages: dict[str, tuple[int, int]] = {}
    built = build(TINY, progress=lambda stage, step, steps: stages.update({stage: (step, steps)}))
    assert stages["training"] == (20, 20)
    assert stages["measuring"][0] == stages["measuring"][1] > 0
    assert [entry.name for entry in cache.iterdir()] == [TINY.key]

    model = AutoModelForCausalLM.from_pretrained(built.folder)
    tokenizer = AutoTokenizer.from_pretrained(built.folder)
    assert model.num_parameters() == built.metrics["parameters"] < 10_000_000
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.config.tie_word_embeddings
    assert (built.folder / "model.safetensors").is_file()
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hello!"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )["input_ids"]
    assert torch.isfinite(model(ids).logits).all()

    shown = CliRunner().invoke(app, ["path"])
    assert shown.exit_code == 2  # the default recipe is another one
    assert shown.stderr.count("\n") == 1


def test_the_chat_template_renders_what_was_trained() -> None:
    tokenizer = build_tokenizer(TINY)
    conversation = (
        Message("system", "You are a helpful assistant."),
        Message("user", "Who are you?"),
        Message("assistant", "I am a small model."),
        Message("user", "Grüße, 你好 🌊 12345!"),
    )
    prompt = Prompt(Form.QUESTION, conversation, "", ())
    messages = [{"role": message.role, "content": message.content} for message in conversation]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert rendered == render(prompt)
    ids = tokenizer(rendered)["input_ids"]
    assert tokenizer.decode(ids) == rendered
    # One rendered conversation after another is a longer conversation.
    longer = tokenizer.apply_chat_template(
        [*messages, {"role": "assistant", "content": "Hi"}, *messages], tokenize=False
    )
    assert longer.startswith(rendered + "Hi" + tokenizer.eos_token)


def test_batches_only_learn_answers() -> None:
    tokenizer = build_tokenizer(TINY)
    batches = Batches(TINY.corpus[:200], tokenizer, TINY.schedule, seed=0)
    learned = seen = 0
    for batch in batches.epoch():
        assert batch.ids.shape == batch.labels.shape
        assert batch.ids.numel() <= TINY.schedule.batch_tokens
        asked = batch.labels != IGNORED
        # Each label is the token that comes next.
        rows, columns = asked.nonzero(as_tuple=True)
        assert torch.equal(batch.labels[asked], batch.ids[rows, columns + 1])
        learned += int(asked.sum())
        seen += batch.ids.numel()
    assert 0 < learned < seen


def test_the_same_seed_gives_the_same_batches() -> None:
    tokenizer = build_tokenizer(TINY)
    first, second = (
        [batch.ids.tolist() for batch in Batches(TINY.corpus[:100], tokenizer, TINY.schedule, seed=3).epoch()]
        for _ in range(2)
    )
    assert first == second


def test_the_command_line_shows_facts() -> None:
    world = Recipe().world
    name = world.forget[0].name
    one = CliRunner().invoke(app, ["show", name, "--json"])
    assert one.exit_code == 0
    assert [row["value"] for row in json.loads(one.stdout)] == [fact.value for fact in world.forget[0].facts]
    everybody = json.loads(CliRunner().invoke(app, ["show", "--list", "--json"]).stdout)
    assert len(everybody) == len(world.entities)


@pytest.mark.parametrize(
    "arguments", [["show"], ["show", "Nobody Whatsoever"], ["path"], ["ask", "Hello"], ["build", "--without", "retain"]]
)
def test_command_line_mistakes_are_one_line_and_exit_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("lethe: ")
    assert result.stderr.count("\n") == 1
