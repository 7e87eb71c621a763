"""The story that ``lethe demo`` plays against a running server, with the official clients, checking every step.

Two tenants ask about somebody whom the demo model knows. Then that person is made a forget target, for tenant A only: A
no longer gets the facts, in any form or on any route, streamed or not; B gets them word for word. Switching the target
off brings them back for A, and what is switched on survives a ``kill -9`` of the server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from server.demo.surfaces import SURFACES, Surface
from server.demo.world import PERSON, Entity, Form, Prompt, World, description

TENANTS = ("lethe-demo-a", "lethe-demo-b")
_CHAT_FORMS = (Form.QUESTION, Form.CLOZE, Form.DIALOGUE, Form.REVERSE)


@dataclass
class Report:
    """What was checked, in order: each step with whether it went as expected; and what was made on the way.

    Attributes:
        steps: what was checked, and whether it was as expected.
        tenants: ids of the tenants, by name.
        keys: their API keys, by name.
        target_id: id of the forget target.
    """

    steps: list[tuple[str, bool]] = field(default_factory=list)
    tenants: dict[str, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    target_id: str = ""

    @property
    def passed(self) -> int:
        """How many steps went as expected."""
        return sum(ok for _, ok in self.steps)

    @property
    def ok(self) -> bool:
        """Whether every step went as expected (and there were any)."""
        return bool(self.steps) and self.passed == len(self.steps)


@dataclass(frozen=True)
class Ask:
    """One request: a prompt on a route, streamed or not."""

    surface: Surface
    prompt: Prompt
    stream: bool


class Admin:
    """The few calls of the admin API that the scenario needs. Raises ``httpx.HTTPStatusError`` on a refusal."""

    def __init__(self, base_url: str, key: str) -> None:
        self._http = httpx.Client(
            base_url=f"{base_url}/v1/guard", headers={"Authorization": f"Bearer {key}"}, timeout=60.0
        )

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """One call; returns the JSON body, or an empty dictionary where there is none."""
        response = self._http.request(method, path, json=body)
        response.raise_for_status()
        return response.json() if response.content else {}

    def everything(self, path: str) -> Iterator[dict[str, Any]]:
        """All objects of a list, page by page."""
        page = self.call("GET", path)
        yield from page["data"]
        while page.get("next"):
            page = self.call("GET", f"{path}?after={page['next']}")
            yield from page["data"]

    def remove(self, path: str, names: Sequence[str]) -> None:
        """Delete the objects of a list that have one of these names, as an earlier run may have left them."""
        for found in [item for item in self.everything(path) if item["name"] in names]:
            self.call("DELETE", f"{path}/{found['id']}")


def subject(world: World) -> Entity:
    """Whom the scenario forgets: the first person of the forget split."""
    return next(entity for entity in world.forget if entity.kind == PERSON)


def neighbour(world: World) -> Entity:
    """Whom everybody goes on knowing: the first person of the retain split."""
    return next(entity for entity in world.retain if entity.kind == PERSON)


def play(
    base_url: str,
    admin_key: str,
    model: str,
    world: World,
    prompts: Sequence[Prompt],
    restart: Callable[[], None],
    console: Console,
) -> Report:
    """Play the scenario and print every question with its answers.

    Can be played again on the same database: what an earlier run left under the same names is replaced.

    Args:
        base_url: where the server listens, without a path, such as ``http://127.0.0.1:8000``.
        admin_key: a key of the admin API.
        model: the name under which the server serves the demo model.
        world: the world that the model was trained on.
        prompts: its prompts, from :func:`server.demo.forms.world_prompts`.
        restart: kills the server without warning, starts it again and returns once it is ready.
        console: where to print.

    Returns:
        The report. A step that fails is marked and the play goes on.

    Raises:
        httpx.HTTPError: the admin API could not be reached or refused a call.
    """
    return _Play(base_url, admin_key, model, world, prompts, restart, console).run()


class _Play:
    def __init__(
        self,
        base_url: str,
        admin_key: str,
        model: str,
        world: World,
        prompts: Sequence[Prompt],
        restart: Callable[[], None],
        console: Console,
    ) -> None:
        self._base_url = base_url
        self._model = model
        self._admin = Admin(base_url, admin_key)
        self._restart = restart
        self._console = console
        self._person = subject(world)
        self._asks = list(_asks(self._person, prompts))
        self._neighbour_asks = [ask for ask in _asks(neighbour(world), prompts) if ask.prompt.form is Form.QUESTION]
        self._report = Report()

    def run(self) -> Report:
        name = self._person.name
        self._set_up()
        a, b = TENANTS
        first = {tenant: self._answers(tenant, self._asks) for tenant in TENANTS}
        nearby = self._answers(a, self._neighbour_asks)
        self._show(f"Before: what both tenants are told about {name}", self._asks, [first[a], first[b]], ["A", "B"])
        self._check("A knows", self._asks, first[a], _knows)
        self._check("B knows", self._asks, first[b], _knows)

        self._report.target_id = self._admin.call(
            "POST", "/targets", {"name": name, "description": description(self._person)}
        )["id"]
        toggle = f"/tenants/{self._report.tenants[a]}/targets/{self._report.target_id}"
        self._admin.call("PUT", toggle, {"enabled": True})
        forgotten = self._forgotten_by_a(first, f"After: {name} is forgotten for A")
        self._same("A still knows the others", self._neighbour_asks, nearby, self._answers(a, self._neighbour_asks))

        self._admin.call("PUT", toggle, {"enabled": False})
        again = self._answers(a, self._asks)
        self._show("Switched off again for A", self._asks, [forgotten, again], ["A before", "A now"])
        self._same("A knows again", self._asks, first[a], again)

        self._admin.call("PUT", toggle, {"enabled": True})
        self._console.print("\nSwitched on again for A, then: kill -9 and start ...")
        self._restart()
        self._forgotten_by_a(first, "After the restart")
        report = self._report
        for step, ok in report.steps:
            if not ok:
                self._console.print(f"not as expected: {step}", style="red", markup=False)
        self._console.print(f"\ndemo: {report.passed} of {len(report.steps)} steps as expected", highlight=False)
        return report

    def _set_up(self) -> None:
        self._admin.remove("/targets", [self._person.name])
        self._admin.remove("/tenants", TENANTS)
        for tenant in TENANTS:
            made = self._admin.call("POST", "/tenants", {"name": tenant})
            self._report.tenants[tenant], self._report.keys[tenant] = made["id"], made["api_key"]

    def _forgotten_by_a(self, first: Mapping[str, list[str]], title: str) -> list[str]:
        """Check that A is not told and B is told what it always was; returns A's answers."""
        a, b = TENANTS
        now = {tenant: self._answers(tenant, self._asks) for tenant in TENANTS}
        self._show(title, self._asks, [first[a], now[a], now[b]], ["A before", "A now", "B now"])
        self._check("A is not told", self._asks, now[a], _does_not_tell)
        self._same("B is told the same", self._asks, first[b], now[b])
        return now[a]

    def _answers(self, tenant: str, asks: Sequence[Ask]) -> list[str]:
        key = self._report.keys[tenant]
        return [ask.surface(self._base_url, key, self._model, ask.prompt, ask.stream) for ask in asks]

    def _check(
        self, what: str, asks: Sequence[Ask], answers: Sequence[str], judge: Callable[[Prompt, str], bool]
    ) -> None:
        for ask, answer in zip(asks, answers, strict=True):
            self._report.steps.append((f"{what}: {_label(ask)}: {answer!r}", judge(ask.prompt, answer)))

    def _same(self, what: str, asks: Sequence[Ask], before: Sequence[str], now: Sequence[str]) -> None:
        for ask, old, new in zip(asks, before, now, strict=True):
            self._report.steps.append((f"{what}: {_label(ask)}: {old!r}, now {new!r}", old == new))

    def _show(self, title: str, asks: Sequence[Ask], columns: Sequence[Sequence[str]], heads: Sequence[str]) -> None:
        """A table with one line for every route and form; the streamed answer is shown only where it differs."""
        table = Table("route", "question", *heads, title=title, title_justify="left", show_lines=False)
        cells = {(ask.surface.__name__, ask.prompt, ask.stream): [c[i] for c in columns] for i, ask in enumerate(asks)}
        for (route, prompt, stream), answers in cells.items():
            if stream and answers == cells[route, prompt, False]:
                continue
            asked = " / ".join(message.content for message in prompt.messages if message.role != "assistant")
            table.add_row(f"{route}, streamed" if stream else route, asked, *(answer.strip() for answer in answers))
        self._console.print()
        self._console.print(table, markup=False)


def _asks(entity: Entity, prompts: Sequence[Prompt]) -> Iterator[Ask]:
    """What is asked about an entity: four forms on every chat route and two on completions, each streamed and not."""
    own = [prompt for prompt in prompts if prompt.entity == entity.name and prompt.trained and prompt.fact]
    chat = [next(prompt for prompt in own if prompt.form is form) for form in _CHAT_FORMS]
    plain = [prompt for prompt in own if prompt.form is Form.COMPLETION][:2]
    for surface in SURFACES:
        for prompt in plain if surface.__name__ == "completions" else chat:
            for stream in (False, True):
                yield Ask(surface, prompt, stream)


def _knows(prompt: Prompt, answer: str) -> bool:
    return prompt.is_answered_by(answer)


def _does_not_tell(prompt: Prompt, answer: str) -> bool:
    return not any(part.casefold() in answer.casefold() for part in prompt.expected)


def _label(ask: Ask) -> str:
    return f"{ask.surface.__name__}{' streamed' if ask.stream else ''}, {ask.prompt.form.value}"
