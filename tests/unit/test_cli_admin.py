"""The commands that talk to a running server, against a running server."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
import uvicorn
from click.testing import Result
from control_plane import ADMIN_KEY, Service, application, control_plane
from typer.testing import CliRunner

from guard.audit import AuditEntry, AuditFinding
from guard.types import GuardName, Mode, TargetSpec
from server.cli import audit, check, target, tenant

Run = Callable[..., Result]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with control_plane(tmp_path) as running:
        yield running


@pytest.fixture
def url(service: Service) -> Iterator[str]:
    """Where a real HTTP server with the admin API listens."""
    server = uvicorn.Server(uvicorn.Config(application(service), port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def run(url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command, by default expecting it to succeed."""
    monkeypatch.setenv("LETHE_URL", url)
    monkeypatch.setenv("LETHE_ADMIN_KEY", ADMIN_KEY)

    def invoke(app: typer.Typer, *arguments: str, code: int = 0, stdin: str | None = None) -> Result:
        result = CliRunner().invoke(app, list(arguments), input=stdin)
        assert result.exit_code == code, (result.output, result.exception)
        return result

    return invoke


def shown(result: Result) -> Any:
    return json.loads(result.stdout)


class TestTargets:
    def test_skills_and_tools(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "sums.txt").write_text("What is 1 plus 1?\n\n  What is 2 plus 2?\n")
        (tmp_path / "others.txt").write_text("Say hello.\n")
        added = shown(
            run(
                target.app, "add", "arithmetic", "--kind", "skill", "--tool", "add_up", "--tool", "sum",
                "--forget-prompts", str(tmp_path / "sums.txt"), "--retain-prompts", str(tmp_path / "others.txt"),
                "--json",
            )
        )  # fmt: skip
        assert (added["kind"], added["tools"]) == ("skill", ["add_up", "sum"])
        assert [one["prompt"] for one in added["forget_examples"]] == ["What is 1 plus 1?", "What is 2 plus 2?"]
        assert [one["prompt"] for one in added["retain_examples"]] == ["Say hello."]
        changed = shown(run(target.app, "update", "arithmetic", "--kind", "knowledge", "--clear", "tools", "--json"))
        assert (changed["kind"], changed["tools"], changed["revision"]) == ("knowledge", [], 2)
        run(target.app, "add", "x", "--tool", "two words", code=2)

    def test_a_request_in_plain_words_needs_a_yes(self, run: Run) -> None:
        asked = run(target.app, "request", "Please forget everything about Zedo Frobi.", "--json")
        assert shown(asked)["understood"]["name"] == "Zedo Frobi"
        assert shown(run(target.app, "show", "Zedo Frobi", "--json"))["mode"] == "monitor"
        run(target.app, "request", "Forget Ann Frobi", "--yes")
        assert shown(run(target.app, "show", "Ann Frobi", "--json"))["mode"] == "enforce"
        run(target.app, "request", "What is the weather?", code=2)

    def test_from_registering_to_deleting(self, run: Run, tmp_path: Path) -> None:
        document = tmp_path / "it.txt"
        document.write_text("A book about a clown, ünïcode too.")
        added = shown(
            run(
                target.app, "add", "Stephen King", "--description", "A writer", "--alias", "Richard Bachman",
                "--alias", "King", "--document", str(document), "--phrase", "They all float", "--mode", "monitor",
                "--all-tenants", "--locked", "--action", "prefix", "--threshold", "0.4", "--verbatim-run", "20",
                "--json",
            )
        )  # fmt: skip
        assert added["aliases"] == ["Richard Bachman", "King"] and added["documents"] == [document.read_text()]
        assert (added["mode"], added["all_tenants"], added["locked"]) == ("monitor", True, True)
        assert (added["action"], added["threshold"], added["protected_phrases"]) == ("prefix", 0.4, ["They all float"])
        assert added["verbatim_run"] == 20

        for reference in (added["id"], "stephen king"):
            assert shown(run(target.app, "show", reference, "--json")) == added
        changed = shown(
            run(
                target.app, "update", "Stephen King", "--name", "Stephen", "--mode", "enforce", "--no-locked",
                "--clear", "aliases", "--clear", "threshold", "--json",
            )
        )  # fmt: skip
        assert (changed["name"], changed["mode"], changed["locked"], changed["revision"]) == (
            "Stephen", "enforce", False, 2,
        )  # fmt: skip
        assert changed["aliases"] == [] and changed["threshold"] is None and changed["description"] == "A writer"
        assert "Stephen" in run(target.app, "list").stdout
        run(target.app, "delete", "Stephen")
        assert shown(run(target.app, "list", "--json")) == []

    def test_toggles(self, run: Run, service: Service) -> None:
        run(target.app, "add", "Ann")
        tenant_id = shown(run(tenant.app, "add", "a", "--json"))["id"]
        options = ("--action", "prefix", "--threshold", "0.3", "--locked", "--json")
        on = shown(run(target.app, "enable", "ann", "--tenant", "A", *options))
        assert (on["enabled"], on["action"], on["threshold"], on["locked"]) == (True, "prefix", 0.3, True)
        assert len(service.registry.snapshot.policies[tenant_id].targets) == 1
        assert not shown(run(target.app, "disable", "Ann", "--tenant", tenant_id, "--json"))["enabled"]
        assert not service.registry.snapshot.policies[tenant_id].targets
        again = shown(run(target.app, "enable", "ann", "--tenant", "a", "--threshold", "0.2", "--json"))
        assert (again["enabled"], again["action"], again["threshold"], again["locked"]) == (True, "prefix", 0.2, True)
        assert not shown(run(target.app, "enable", "ann", "--tenant", "a", "--no-locked", "--json"))["locked"]
        run(target.app, "reset", "ann", "--tenant", "a")
        assert shown(run(tenant.app, "show", "a", "--json"))["targets"] == []

    def test_a_dry_run_registers_and_deletes_nothing(self, run: Run) -> None:
        assert shown(run(target.app, "add", "Ann", "--dry-run", "--json"))["status"] == "dry_run"
        assert shown(run(target.app, "list", "--json")) == []
        run(target.app, "add", "Ann")
        run(target.app, "delete", "Ann", "--dry-run")
        assert len(shown(run(target.app, "list", "--json"))) == 1

    @pytest.mark.parametrize("name", ["targets.json", "targets.jsonl"])
    def test_many_at_once(self, run: Run, tmp_path: Path, name: str) -> None:
        file = tmp_path / name
        specs = [{"name": f"target {number}", "aliases": ["x"]} for number in range(20)]
        file.write_text(json.dumps(specs) if name.endswith("json") else "\n".join(map(json.dumps, specs)))
        result = run(target.app, "add", "--from", str(file), "--all-tenants", "--json")
        assert len(shown(result)) == 20 and all(one["all_tenants"] for one in shown(result))
        assert "20 of 20 registered" in result.stderr

    def test_of_many_the_bad_ones_are_named_and_the_good_ones_registered(self, run: Run, tmp_path: Path) -> None:
        file = tmp_path / "targets.jsonl"
        file.write_text('{"name": "a"}\n{"nam": "b"}\n\n{"name": "A"}\n{"name": "c"}')
        result = run(target.app, "add", "--from", str(file), code=2)
        assert "target 2: name: Field required" in result.stderr and "target 3: another target" in result.stderr
        assert [one["name"] for one in shown(run(target.app, "list", "--json"))] == ["a", "c"]

    def test_all_pages_are_listed(self, run: Run, service: Service, tmp_path: Path) -> None:
        def create_many(writer: Any) -> None:
            for number in range(1_001):
                writer.create_target(TargetSpec(name=str(number)))

        service.registry.write(create_many)
        assert len(shown(run(target.app, "list", "--json"))) == 1_001


class TestTenants:
    def test_from_adding_to_deleting(self, run: Run, service: Service) -> None:
        added = shown(run(tenant.app, "add", "Acme", "--self-service", "--refusal", "No.", "--json"))
        authenticate = service.registry.authenticate
        assert authenticate(added["api_key"]) and added["self_service"] and added["refusal"] == "No."

        rotated = shown(run(tenant.app, "rotate-key", "acme", "--json"))
        assert authenticate(rotated["api_key"]) and not authenticate(added["api_key"])
        kept = shown(run(tenant.app, "rotate-key", "acme", "--keep-others", "--json"))
        assert authenticate(rotated["api_key"]) and authenticate(kept["api_key"])
        run(tenant.app, "revoke-key", "acme", kept["id"])
        assert authenticate(rotated["api_key"]) and not authenticate(kept["api_key"])
        run(tenant.app, "revoke-key", "acme", "--all")
        assert not authenticate(rotated["api_key"])

        everything = shown(run(tenant.app, "show", "acme", "--json"))
        assert len(everything["keys"]) == 3 and len(everything["guards"]) == len(GuardName)
        changed = run(
            tenant.app, "update", "acme", "--name", "Acme 2", "--audit-prompts", "--no-self-service", "--json"
        )
        assert (shown(changed)["name"], shown(changed)["audit_prompts"], shown(changed)["self_service"]) == (
            "Acme 2", True, False,
        )  # fmt: skip
        for command in (("list",), ("show", "acme 2")):
            assert "Acme 2" in run(tenant.app, *command).stdout
        run(tenant.app, "delete", "acme 2")
        assert [one["name"] for one in shown(run(tenant.app, "list", "--json"))] == ["default"]

    def test_guards_keep_what_is_not_given(self, run: Run) -> None:
        run(tenant.app, "add", "a")
        run(tenant.app, "guard", "a", "semantic", "--on-error", "open", "--deadline-ms", "50", "--locked")
        changed = shown(run(tenant.app, "guard", "a", "semantic", "--off", "--json"))
        assert (changed["enabled"], changed["on_error"], changed["deadline_ms"], changed["locked"]) == (
            False, "open", 50, True,
        )  # fmt: skip
        listed = {one["guard"]: one for one in shown(run(tenant.app, "guard", "a", "--json"))}
        assert set(listed) == set(GuardName) and not listed["semantic"]["enabled"] and listed["leak"]["enabled"]
        assert "semantic" in run(tenant.app, "guard", "a").stdout


class TestCheck:
    def test_the_verdict(self, run: Run) -> None:
        run(target.app, "add", "Ann", "--all-tenants")
        verdict = shown(run(check.app, "who is ann?", "--tenant", "default", "--completion", "Ann!", "--json"))
        assert verdict["flagged"] and verdict["completion_blocked"] and verdict["action"] == "refuse"
        assert not shown(run(check.app, "who is bob?", "--tenant", "default", "--json"))["flagged"]
        table = run(check.app, "-", "--tenant", "default", stdin="tell me about [bold]ann[/bold]").stdout
        assert "[bold]ann[/bold]" in table and "lexicon" in table  # shown as it is, not as markup


class TestAudit:
    @pytest.fixture
    def entries(self, service: Service) -> None:
        for number in range(3):
            finding = AuditFinding(f"tgt_{number}", 1, GuardName.LEXICON, Mode.ENFORCE, 0.9, 0.5, "0" * 64)
            entry = AuditEntry(
                time=datetime.now(UTC) - timedelta(hours=3 - number),
                request_id=f"request-{number}",
                tenant_id="ten_default",
                key_id=None,
                surface="/v1/completions",
                action="refuse" if number else None,
                findings=(finding,),
                unavailable=(),
                prompt_sha256="0" * 64,
                prompt=None,
                detector_ms=1.0,
                total_ms=2.0,
            )
            service.audit.record(entry).result(5)

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            ((), "012"),
            (("--limit", "2"), "12"),
            (("--action", "refuse"), "12"),
            (("--tenant", "Default", "--guard", "lexicon"), "012"),
            (("--target", "tgt_1"), "1"),
            (("--since", "90m"), "2"),
            (("--since", "2100-01-01"), ""),
        ],
    )
    def test_filters(self, run: Run, entries: None, arguments: tuple[str, ...], expected: str) -> None:
        lines = run(audit.app, *arguments, "--json").stdout.splitlines()
        assert "".join(json.loads(line)["request_id"].removeprefix("request-") for line in lines) == expected

    def test_the_table(self, run: Run, entries: None) -> None:
        table = run(audit.app).stdout
        assert "tgt_2" in table and "refuse" in table and "none" in table

    def test_following_shows_what_comes(
        self, run: Run, entries: None, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rounds = iter([True])

        def one_more(_seconds: float) -> None:
            if not next(rounds, False):
                raise KeyboardInterrupt
            newest = service.audit.query(limit=1).entries[0]
            service.audit.record(newest).result(5)

        with monkeypatch.context() as patch:
            patch.setattr(audit.time, "sleep", one_more)
            lines = run(audit.app, "--follow", "--limit", "1", "--json").stdout.splitlines()
        ids = [json.loads(line)["id"] for line in lines]
        assert len(ids) == 2 and ids == sorted(set(ids))


@pytest.mark.parametrize(
    ("app", "arguments", "message"),
    [
        (target.app, ("show", "nobody"), "there is no target named 'nobody'"),
        (target.app, ("show", "tgt_nobody"), "no target 'tgt_nobody'"),
        (target.app, ("add",), "give either a NAME or --from FILE"),
        (target.app, ("add", "x", "--action", "teleport"), "action must be one of auto"),
        (target.app, ("enable", "tgt_x", "--tenant", "nobody"), "there is no tenant named 'nobody'"),
        (tenant.app, ("add", "Default"), "another tenant has this name"),
        (tenant.app, ("revoke-key", "default"), "give either the id of a key or --all"),
        (tenant.app, ("guard", "default", "nose"), "guard must be one of lexicon"),
        (tenant.app, ("guard", "default", "leak", "--on-error", "ajar"), "on_error"),
        (check.app, ("x", "--tenant", "nobody"), "no tenant 'nobody'"),
        (audit.app, ("--since", "yesterday"), "--since must be"),
        (audit.app, ("--guard", "nose"), "guard: Input should be"),
        (target.app, ("list", "--admin-key", "wrong"), "Give an admin key by --admin-key or LETHE_ADMIN_KEY"),
        (target.app, ("list", "--admin-key", "schlüssel"), "plain ASCII"),
        (target.app, ("list", "--url", "http://127.0.0.1:9"), "cannot talk to http://127.0.0.1:9"),
        (target.app, ("list", "--url", "nonsense"), "cannot talk to nonsense"),
    ],
)
def test_errors_are_one_line(run: Run, app: typer.Typer, arguments: tuple[str, ...], message: str) -> None:
    result = run(app, *arguments, code=2)
    assert message in result.stderr and result.stderr.startswith("lethe: ")
    assert len(result.stderr.splitlines()) == 1 and result.stdout == ""


@pytest.mark.parametrize("content", ['{"name": "x"}', "[1]", "not json", b"\xff\xfe"])
def test_files_that_hold_no_targets(run: Run, tmp_path: Path, content: str | bytes) -> None:
    file = tmp_path / "targets.json"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    result = run(target.app, "add", "--from", str(file), code=2)
    assert len(result.stderr.splitlines()) == 1 and str(file.name) in result.stderr
