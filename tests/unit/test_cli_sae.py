"""What ``lethe sae`` reads and prints, without an engine; texts on their way to the trainer."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from guard.worker import COMPILE_SALT, CPU_WORKER, RUNNER
from sae_features.autoencoder import AutoencoderError
from server.autoencoders import Activations, open_autoencoder, pieces, read_lines
from server.cli import sae
from server.settings import Settings

FITTED = {
    "intervention": "features",
    "settings": {"layer": 3},
    "report": {
        "rule": "weighed",
        "recall_held_out": {"weighed": 0.9, "share": 0.2},
        "features": [{"feature": 17, "importance": 4.0, "elsewhere": 0.1, "snippets": ["who [is] it"]}],
        "separation": {"forget": [1.0, 2.0], "retain": [0.0, 0.5]},
    },
}


class _Client:
    """In the place of the admin API, within a real connection, which turns errors into lines."""

    def __init__(self, fitted: list[Any]) -> None:
        self._fitted = fitted

    def id_of(self, kind: str, reference: str) -> str:
        return f"id of {reference}"

    def request(self, method: str, path: str) -> Any:
        assert (method, path) == ("GET", "/targets/id of Somebody/report")
        return {"data": self._fitted}


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Any:
    def with_reports(*fitted: Any) -> None:
        client = _Client([{"intervention": "eco", "settings": {}, "report": {}}, *fitted])
        monkeypatch.setattr("server.cli.client.AdminClient", lambda _: client)

    return with_reports


def test_features_are_shown_and_plotted(answering: Any, tmp_path: Path) -> None:
    answering(FITTED)
    plot = tmp_path / "plot.png"
    shown = CliRunner().invoke(sae.app, ["features", "Somebody", "--plot", str(plot)])
    assert shown.exit_code == 0, shown.output
    assert "17" in shown.output and "who [is] it" in shown.output
    assert plot.read_bytes().startswith(b"\x89PNG")
    as_json = CliRunner().invoke(sae.app, ["features", "Somebody", "--json"])
    assert json.loads(as_json.output) == FITTED


def test_a_target_without_features_is_an_error(answering: Any) -> None:
    answering()
    _says_in_one_line(CliRunner().invoke(sae.app, ["features", "Somebody"]))


@pytest.mark.parametrize("plot", ["nowhere/plot.png", "plot.nonsense"])
def test_a_plot_that_cannot_be_written_is_an_error(answering: Any, tmp_path: Path, plot: str) -> None:
    answering(FITTED)
    _says_in_one_line(CliRunner().invoke(sae.app, ["features", "Somebody", "--plot", str(tmp_path / plot)]))


def _says_in_one_line(result: Result) -> None:
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit), result.exception  # which is no traceback
    assert len(result.stderr.splitlines()) == 1


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(args: Any) -> None:
        raise AssertionError("the engine was started")

    monkeypatch.setattr("vllm.entrypoints.launchers.api_server.entry.build_async_engine_client", started)


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (None, []),
        (b"one\ntwo\n", ["--k", "9", "--width", "8"]),
        (b"one\ntwo\n", ["--width", "16", "--k", "4"]),  # the checkpoint's is 8
        (b"\n \n", ["--width", "8", "--k", "4"]),
        (b"\xff\xfe\n", ["--width", "8", "--k", "4"]),
    ],
)
@pytest.mark.usefixtures("no_engine")
def test_what_cannot_be_trained_is_said_before_the_engine_starts(
    tmp_path: Path, content: bytes | None, options: list[str]
) -> None:
    checkpoint = tmp_path / "sae" / "checkpoint-000000020"
    checkpoint.mkdir(parents=True)
    begun = {"d_in": 24, "d_sae": 8, "k": 4, "metadata": {"hook_name": "blocks.1.hook_resid_post"}}
    (checkpoint / "cfg.json").write_text(json.dumps(begun))
    command = ["train", "model", "--layer", "1", "--output", str(tmp_path / "sae"), *options]
    if content is not None:
        (tmp_path / "texts.txt").write_bytes(content)
        command += ["--text", str(tmp_path / "texts.txt")]
    _says_in_one_line(CliRunner().invoke(sae.app, command))


@pytest.mark.usefixtures("no_engine")
def test_a_folder_is_no_file_of_texts(tmp_path: Path) -> None:
    command = ["train", "model", "--layer", "1", "--output", str(tmp_path / "sae"), "--text", str(tmp_path)]
    result = CliRunner().invoke(sae.app, command)
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit)


def test_texts_are_cut_and_blank_lines_left_out(tmp_path: Path, tokenizer: Any) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("one line\n\n   \nanother\n")
    assert read_lines([file, file]) == ["one line", "another"] * 2
    ids = tokenizer.encode("The quick brown fox jumps over the lazy dog.")
    cut = pieces(tokenizer, "The quick brown fox jumps over the lazy dog.", 4)
    assert [token for piece in cut for token in piece] == ids[: len(ids) - (len(ids) % 4 == 1)]
    assert all(1 < len(piece) <= 4 for piece in cut)


def test_activations_come_for_ever_without_first_tokens() -> None:
    class _Probe:
        async def activations(self, prompts: list[list[int]], sites: list[str]) -> list[dict[str, torch.Tensor]]:
            return [{site: torch.tensor(ids)[:, None].float() for site in sites} for ids in prompts]

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    texts = [[-1, 10 * number, 10 * number + 1] for number in range(100)]
    activations = Activations(_Probe(), 2, texts, loop, seed=0)  # type: ignore[arg-type]
    stream = iter(activations)
    seen = torch.cat(list(islice(stream, 10)))[:, 0].tolist()
    stream.close()
    time.sleep(0.05)  # what was read ahead is cancelled in the loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    assert set(seen) == {float(token) for ids in texts for token in ids[1:]}
    assert len(seen) == 10 * 64 * 2


def test_what_the_settings_name_is_opened_or_said_to_be_missing(tmp_path: Path) -> None:
    assert open_autoencoder(Settings()) is None
    with pytest.raises(FileNotFoundError):
        open_autoencoder(Settings(sae=str(tmp_path / "nowhere")))
    with pytest.raises(AutoencoderError):
        open_autoencoder(Settings(sae="a-release-without-an-id"))


def test_an_engine_that_does_not_start_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started = []

    @asynccontextmanager
    async def failing(args: Any) -> Any:
        started.append((args.worker_cls, args.additional_config, os.environ[RUNNER]))
        raise RuntimeError("Engine core initialization failed.")
        yield

    monkeypatch.setattr("vllm.entrypoints.launchers.api_server.entry.build_async_engine_client", failing)
    monkeypatch.setenv(RUNNER, "0")  # so that it is put back
    monkeypatch.delenv(RUNNER)
    texts = tmp_path / "texts.txt"
    texts.write_text("one\ntwo\n")
    command = ["train", "model", "--layer", "1", "--text", str(texts), "--output", str(tmp_path / "sae")]
    command += ["--additional-config", '{"mine": 2}']
    result = CliRunner().invoke(sae.app, command)
    assert result.exit_code == 2
    assert "Engine core initialization failed." in result.stderr and "Traceback" not in result.stderr
    assert started == [(CPU_WORKER, {"mine": 2, **COMPILE_SALT}, "0")]
