"""The columns of the matrix: a tenant of the same server for each configuration of guards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from guard.types import GuardName
from server.evaluation.admin import PATIENT, Admin, Endpoint, admin
from server.evaluation.attacks.subjects import Person
from server.evaluation.tofu.methods import jobs_of

#: The untouched model.
NONE = "none"
#: The column of the model that never learnt what is to be forgotten, on a server of its own.
REFERENCE = "reference"

_TENANT = "lethe-eval-attacks-{}"


@dataclass(frozen=True, slots=True)
class Configuration:
    """What is on for a tenant.

    Attributes:
        guards: those that are on.
        action: what happens to a flagged request; None: no target is on.
        always: whether it happens to every request.
        phrases: whether the targets' phrases are registered too, for guards that go by phrases alone.
        system: whether the client sends a system message that forbids it.
    """

    guards: tuple[GuardName, ...] = tuple(GuardName)
    action: str | None = "refuse"
    always: bool = False
    phrases: bool = False
    system: bool = False


_TEXT = (GuardName.LEXICON, GuardName.SEMANTIC)

CONFIGURATIONS: Mapping[str, Configuration] = {
    NONE: Configuration(action=None),
    REFERENCE: Configuration(action=None),
    "prompt": Configuration(action=None, system=True),
    "lexicon": Configuration((GuardName.LEXICON,)),
    "text": Configuration(_TEXT),
    "leak": Configuration((GuardName.LEAK,), phrases=True),
    "constrain": Configuration((), "constrain", always=True, phrases=True),
    "statements": Configuration((GuardName.STATEMENTS,)),
    "eco": Configuration(_TEXT, "eco"),
    "all": Configuration(),
    "all+eco": Configuration(action="eco"),
    "all+constrain": Configuration(action="constrain", always=True),
    "all+auto": Configuration(action="auto"),
}

#: The columns by default, and for a quick look.
COLUMNS = (
    *(NONE, REFERENCE, "prompt", "lexicon", "text", "leak", "constrain", "statements", "eco"),
    *("all", "all+eco", "all+auto"),
)
QUICK = (NONE, "all")


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant's id and API key."""

    id: str
    key: str


@contextmanager
def registered(endpoint: Endpoint, people: Sequence[Person], names: Sequence[str]) -> Iterator[dict[str, Tenant]]:
    """Tenants by configuration. Targets and tenants are taken away again in the end.

    Args:
        endpoint: the server.
        people: who is to be forgotten.
        names: of configurations that agree on whether phrases are registered.

    Raises:
        ServedError: the admin API refuses; so it does when it has a target or a tenant of such a name already.
        httpx.TransportError: it cannot be reached.
    """
    chosen = {name: CONFIGURATIONS[name] for name in names}
    phrases = any(one.phrases for one in chosen.values())
    with admin(endpoint) as api:
        targets = []
        if any(one.action for one in chosen.values()):
            extra = [{"protected_phrases": person.phrases} if phrases else {} for person in people]
            bodies = [{**person.target, **more} for person, more in zip(people, extra, strict=True)]
            targets = [str(api.make("/targets", body)["id"]) for body in bodies]
        if jobs := jobs_of({one.action for one in chosen.values()}):
            api.compile(targets, jobs)
        yield {name: _tenant(api, name, one, targets) for name, one in chosen.items()}


def _tenant(api: Admin, name: str, configuration: Configuration, targets: Sequence[str]) -> Tenant:
    made = api.make("/tenants", {"name": _TENANT.format(name.replace("+", "-"))})
    path = f"/tenants/{made['id']}"
    for guard in GuardName:
        toggle = {"enabled": guard in configuration.guards, **PATIENT.get(guard, {})}
        api.put(f"{path}/guards/{guard}", toggle)
    if configuration.action is not None:
        use = {"action": configuration.action, "gating": "always" if configuration.always else "gated"}
        for target in targets:
            api.put(f"{path}/targets/{target}", {"enabled": True, **use})
    return Tenant(str(made["id"]), str(made["api_key"]))
