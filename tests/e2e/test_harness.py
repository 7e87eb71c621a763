"""``lethe eval harness``: lm-evaluation-harness itself, asking a real server for two tenants."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys

import yaml

from server.demo.model import build
from server.demo.world import PERSON
from tests.harness import ADMIN_KEY


def _task(folder, name, people, books):
    """A task of the harness: which book is theirs?"""
    rng = random.Random(name)
    rows = []
    for person in people:
        book = person.value("book")
        choices = sorted([book, *rng.sample([one for one in books if one != book], 3)])
        question = f"Which book did {person.name} write?"
        rows.append({"question": question, "choices": choices, "right": choices.index(book)})
    (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / f"{name}.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{right}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}],
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(task))


def test_guards_cost_what_is_forgotten_and_nothing_else(server, recipe, tmp_path):
    person = next(entity for entity in recipe.world.forget if entity.kind == PERSON)
    others = [entity for entity in recipe.world.retain if entity.kind == PERSON][:12]
    books = [one.value("book") for one in (person, *others)]
    _task(tmp_path, "lethe_forgotten", [person], books)
    _task(tmp_path, "lethe_others", others, books)
    (tmp_path / "targets.json").write_text(json.dumps([{"name": person.name}]))
    command = [
        *(sys.executable, "-m", "server.cli", "eval", "harness", "lethe_forgotten,lethe_others", "--chat"),
        *("--model", str(build(recipe).folder), "--include", str(tmp_path), "--base-url", server.url),
        *("--targets", str(tmp_path / "targets.json"), "--action", "refuse", "--work", str(tmp_path / "work")),
        *("--json", str(tmp_path / "figures.json")),
    ]
    environment = {**os.environ, "LETHE_ADMIN_KEY": ADMIN_KEY, "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "figures.json").read_text())
    none, guarded = found["none"], found["guarded"]
    assert none["lethe_forgotten"]["acc"][0] == 1.0 and none["lethe_others"]["acc"][0] == 1.0
    assert guarded["lethe_forgotten"]["acc"][0] == 0.0  # refused: all options are alike, the first is wrong
    assert guarded["lethe_others"] == none["lethe_others"]
    assert found["n"]["lethe_others"] == len(others)
    assert "lethe_others" in done.stdout
