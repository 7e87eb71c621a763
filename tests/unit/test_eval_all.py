"""``lethe eval all``: servers are shared between suites, and one suite that fails does not stop the others."""

from __future__ import annotations

import json
import shlex
import signal
from pathlib import Path
from threading import Event, Thread

import pytest
import typer
from typer.testing import CliRunner

from server.child import ServerFailed, ending_on_sigterm
from server.cli import everything
from server.cli.evaluate import app
from server.cli.measuring import COMMAND, command_line, finish, measuring
from server.evaluation import child as servers
from server.evaluation.child import child, kept_servers


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What servers did."""
    done: list[str] = []

    class _Server:
        def __init__(self, model: Path, port: int, *_: object) -> None:
            self.model, self.base_url = model, f"http://127.0.0.1:{port}"

        def start(self) -> None:
            done.append(f"start {self.model}")

        def stop(self) -> None:
            done.append(f"stop {self.model}")

    monkeypatch.setattr(servers, "Server", _Server)
    return done


def _use(*models: str) -> list[str]:
    urls = []
    for model in models:
        with child(Path(model)) as endpoint:
            urls.append(endpoint.url)
    return urls


def test_by_itself_a_server_lasts_as_long_as_it_is_used(log: list[str]) -> None:
    _use("a", "a")
    assert log == ["start a", "stop a", "start a", "stop a"]


def test_within_one_run_the_last_servers_stay_up(log: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "_AT_MOST", 2)
    with kept_servers():
        first, second, again = _use("a", "b", "a")
        assert log == ["start a", "start b"] and first == again != second
        _use("c")
        assert log[2:] == ["stop b", "start c"]
    assert sorted(log[4:]) == ["stop a", "stop c"]
    _use("a")
    assert log[-2:] == ["start a", "stop a"]


def test_a_server_that_is_wanted_soon_starts_beside_what_is_done_until_then(log: list[str]) -> None:
    with kept_servers([Path("a"), Path("b")]):
        _use("c", "b", "a")
        assert sorted(log) == ["start a", "start b", "start c"]
    assert sorted(log[3:]) == ["stop a", "stop b", "stop c"]


def test_a_server_that_is_starting_is_not_waited_for_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, stopped = Event(), Event()

    class _Server:
        def __init__(self, *_: object) -> None:
            pass

        def start(self) -> None:
            begun.set()
            stopped.wait(60)
            raise ServerFailed("the server ended")

        def stop(self) -> None:
            stopped.set()

    monkeypatch.setattr(servers, "Server", _Server)
    with kept_servers([Path("a")]):
        begun.wait(60)
    assert stopped.is_set()


def test_a_server_that_is_about_to_start_in_the_end_does_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is to be stopped may not be there yet, and its folder is in use until it has ended."""
    begun, launched, stopped, ended, folders = Event(), Event(), Event(), Event(), []

    class _Server:
        def __init__(self, model: Path, port: int, key: str, folder: Path, *_: object) -> None:
            folders.append(folder)

        def start(self) -> None:
            begun.set()
            assert not stopped.wait(0.3)
            launched.set()
            assert stopped.wait(5)
            (folders[0] / "server.log").write_text("the end")
            ended.set()
            raise ServerFailed("the server ended")

        def stop(self) -> None:
            if launched.is_set():
                stopped.set()

    monkeypatch.setattr(servers, "Server", _Server)
    with kept_servers([Path("a")]):
        begun.wait(60)
    assert ended.is_set() and not folders[0].exists()


def test_who_fails_leaves_no_broken_server(log: list[str]) -> None:
    with kept_servers():
        with pytest.raises(OSError, match="gone"), child(Path("a")):
            raise OSError("gone")
        _use("a")
        assert log == ["start a", "stop a", "start a"]


def test_every_suite_is_run_and_what_failed_is_said(
    tmp_path: Path, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def run(arguments: list[str]) -> int:
        asked.append(arguments)
        return 2 if arguments[0] == "rwku" else 0

    monkeypatch.setattr(everything, "_run", run)
    (tmp_path / "data").mkdir()
    options = ["--out", str(tmp_path), "--data", str(tmp_path / "data"), "--models", str(tmp_path / "none"), "--quick"]
    result = CliRunner().invoke(app, ["all", *options])
    assert result.exit_code == 1
    names = [arguments[0] for arguments in asked]
    assert names == ["demo", "attacks", "rwku", "overrefusal", "pistol", "knowundo", "report"]
    assert result.stderr.count("failed") == 1


def test_what_nobody_foresaw_is_a_failure_and_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def commands(arguments: list[str], *, standalone_mode: bool) -> int:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr("server.cli.evaluate.app", commands)
    assert everything._run(["rwku"]) == 1
    monkeypatch.undo()
    assert everything._run(["rwku", "--data", "nowhere"]) == 2


def test_ctrl_c_ends_the_run_and_not_just_one_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []
    commands = typer.Typer()

    @commands.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
    def suite(context: typer.Context) -> None:
        begun.append(context.args)
        raise KeyboardInterrupt

    monkeypatch.setattr("server.cli.evaluate.app", commands)
    assert CliRunner().invoke(app, ["all", *_options(tmp_path)]).exit_code == 130
    assert len(begun) == 1


def test_a_suite_knows_the_command_that_runs_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def commands(arguments: list[str], *, standalone_mode: bool) -> int:
        seen.append(command_line())
        return 0

    monkeypatch.setattr("server.cli.evaluate.app", commands)
    assert everything._run(["rwku", "--data", "d"]) == 0
    assert seen == [["eval", "rwku", "--data", "d"]]


def _options(out: Path) -> list[str]:
    nowhere = str(out / "none")
    return ["--out", str(out), "--data", nowhere, "--models", nowhere]


def test_the_report_shows_nothing_of_an_earlier_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor of suites that this call leaves out; files of nobody's making stay."""
    wanted = everything._plan(tmp_path, tmp_path, tmp_path, "none", "none", False)
    suites = {Path(arguments[arguments.index("--json") + 1]) for arguments in wanted}
    for path in suites | {tmp_path / "mine.json"}:
        path.write_text("{}")
    monkeypatch.setattr(everything, "_run", lambda arguments: 0)
    assert CliRunner().invoke(app, ["all", *_options(tmp_path), "--quick"]).exit_code == 0
    assert len(suites) == 9
    assert [path.name for path in tmp_path.iterdir()] == ["mine.json"]


def test_no_key_is_in_a_file_of_figures(tmp_path: Path) -> None:
    given = ["eval", "choices", "--admin-key", "secret", "--limit", "3", "--tenant-key=secret", "--work=w"]
    token = COMMAND.set(given)
    finish(tmp_path / "choices.json", {})
    COMMAND.reset(token)
    command = json.loads((tmp_path / "choices.json").read_text())["command"]
    assert shlex.split(command)[1:] == [
        *("eval", "choices", "--admin-key", "…", "--limit", "3", "--tenant-key=…", "--work=w"),
    ]


def test_every_file_of_figures_says_how_it_is_made(tmp_path: Path) -> None:
    token = COMMAND.set(["eval", "rwku", "--data", "a folder"])
    finish(tmp_path / "rwku.json", {"n": 1})
    COMMAND.reset(token)
    assert json.loads((tmp_path / "rwku.json").read_text()) == {
        "n": 1,
        "command": "lethe eval rwku --data 'a folder'",
    }


def test_sigterm_ends_the_servers(log: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They are in process groups of their own, and would stay behind."""
    before = signal.getsignal(signal.SIGTERM)

    def run(arguments: list[str]) -> int:
        with measuring("demo"):
            _use("a")
            signal.raise_signal(signal.SIGTERM)
        return 0

    monkeypatch.setattr(everything, "_run", run)
    assert CliRunner().invoke(app, ["all", *_options(tmp_path)]).exit_code == 143
    assert log[-1] == "stop a" and log.count("start a") == log.count("stop a")
    assert signal.getsignal(signal.SIGTERM) is before


def test_one_suite_ends_its_server_too(log: list[str]) -> None:
    with pytest.raises(SystemExit) as ended, measuring("demo"), child(Path("a")):
        signal.raise_signal(signal.SIGTERM)
    assert ended.value.code == 143
    assert log == ["start a", "stop a"]


def test_a_second_sigterm_does_not_break_off_what_the_first_ends() -> None:
    done = []
    with pytest.raises(SystemExit), ending_on_sigterm(), ending_on_sigterm():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            done.append("ended")
    assert done


def test_off_the_main_thread_signals_are_left_alone() -> None:
    def run() -> None:
        with ending_on_sigterm():
            handlers.append(signal.getsignal(signal.SIGTERM))

    handlers: list[object] = []
    thread = Thread(target=run)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGTERM)]
