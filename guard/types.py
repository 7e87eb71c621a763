"""The vocabulary of Lethe: forget targets, tenants, toggles, findings, verdicts and plans. No behaviour.

Everything here is immutable. What an operator writes (``*Spec``, ``*Toggle``) is pydantic, because it arrives as
JSON and must be validated; what travels through a request is a plain frozen dataclass, because it is hot.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Phrase = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]
Document = Annotated[str, StringConstraints(min_length=1, max_length=10_000_000)]
Action = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]  # "auto" or an intervention's name
Score = Annotated[float, Field(ge=0.0, le=1.0)]
#: A function's name as clients send it; the characters of OpenAI's, Anthropic's and MCP's names.
ToolName = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^[A-Za-z0-9_./:-]{1,128}$")]
RunLength = Annotated[int, Field(ge=3, le=200)]  # in words


class Mode(StrEnum):
    """What happens with a decision on a target: act on it, or only record it."""

    ENFORCE = "enforce"
    MONITOR = "monitor"


class TargetKind(StrEnum):
    """What is to be forgotten: what somebody or something is and did, or how something is done."""

    KNOWLEDGE = "knowledge"
    SKILL = "skill"


class Gating(StrEnum):
    """Which requests an intervention inside the model applies to: those flagged for the target, or all."""

    GATED = "gated"
    ALWAYS = "always"


class OnError(StrEnum):
    """What a guard that could not judge counts as: flagged (``closed``) or clean (``open``)."""

    OPEN = "open"
    CLOSED = "closed"


class Scope(StrEnum):
    """What an API key may do: administer Lethe, or send requests as one tenant."""

    ADMIN = "admin"
    TENANT = "tenant"


class GuardName(StrEnum):
    """The detectors and filters that a tenant can switch."""

    LEXICON = "lexicon"  # names, aliases and distinctive name parts in the prompt
    SEMANTIC = "semantic"  # sentence-encoder evidence in the prompt
    FEATURES = "features"  # the model's own features, read in the pass that serves the prompt
    STATEMENTS = "statements"  # facts told in other words in the output
    LEAK = "leak"  # protected phrases, names and aliases, and copies of documents, in the output


class Spec(BaseModel):
    """Base of everything an operator writes: frozen, and unknown fields are errors rather than silently ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Example(Spec):
    """One prompt about (or near) a target, with the answer that a model would give."""

    prompt: Phrase
    completion: Phrase | None = None


class TargetSpec(Spec):
    """A thing to be forgotten, as the operator describes it. The name alone is enough, except for a skill."""

    name: Name
    #: A skill is recognised by what the model makes of a prompt, not by what the prompt says (docs/features.md): it is
    #: fitted on forget_examples that need it and retain_examples that do not.
    kind: TargetKind = TargetKind.KNOWLEDGE
    description: Annotated[str, StringConstraints(max_length=20_000)] = ""
    aliases: tuple[Phrase, ...] = ()
    documents: tuple[Document, ...] = ()
    forget_examples: tuple[Example, ...] = ()
    retain_examples: tuple[Example, ...] = ()
    protected_phrases: tuple[Phrase, ...] = ()
    #: Functions that requests may not offer to the model, nor the model call or name.
    tools: tuple[ToolName, ...] = ()
    #: How many words of a document may follow each other in an answer. Ten is a quotation within a sentence; texts that
    #: have nothing to do with a book share six or seven words in a row with it, hardly ever more (docs/documents.md).
    verbatim_run: RunLength = 10
    mode: Mode = Mode.ENFORCE
    all_tenants: bool = False
    locked: bool = False
    action: Action = "auto"
    gating: Gating = Gating.GATED
    threshold: Score | None = None

    @field_validator("forget_examples", "retain_examples", mode="before")
    @classmethod
    def _plain_strings_are_prompts(cls, value: object) -> object:
        if isinstance(value, (list, tuple)):
            return tuple({"prompt": item} if isinstance(item, str) else item for item in value)
        return value


class TargetToggle(Spec):
    """How one tenant uses one target."""

    enabled: bool
    action: Action | None = None
    gating: Gating | None = None
    threshold: Score | None = None
    locked: bool = False


class GuardToggle(Spec):
    """How one tenant uses one guard."""

    enabled: bool = True
    on_error: OnError = OnError.CLOSED
    deadline_ms: Annotated[int, Field(gt=0, le=600_000)] = 2_000
    locked: bool = False


class TenantSpec(Spec):
    """A tenant, as the operator describes it."""

    name: Name
    anonymous: bool = False  # served without a key; at most the built-in "default" tenant
    self_service: bool = False  # its own key may also switch off what is not locked
    audit_prompts: bool = False  # keep prompts in the audit in clear, not only hashed
    refusal: Annotated[str, StringConstraints(min_length=1, max_length=2000)] | None = None


@dataclass(frozen=True, slots=True)
class ForgetTarget:
    """A registered target. ``revision`` grows by one with every change of ``spec``."""

    id: str
    revision: int
    spec: TargetSpec
    created_at: datetime
    updated_at: datetime

    @property
    def key(self) -> str:
        """Names this revision of this target; what detectors and indexes are keyed by."""
        return f"{self.id}@{self.revision}"


@dataclass(frozen=True, slots=True)
class Tenant:
    """A registered tenant."""

    id: str
    revision: int
    spec: TenantSpec
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is kept: its SHA-256 and enough to recognise it in a list, never the key itself."""

    id: str
    scope: Scope
    tenant_id: str | None  # None: an admin key
    hash: str
    prefix: str
    created_at: datetime
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Principal:
    """Who sends a request. ``tenant_id`` is None for admins, ``key_id`` for the anonymous tenant."""

    scope: Scope
    tenant_id: str | None
    key_id: str | None


@dataclass(frozen=True, slots=True)
class Finding:
    """One target seen in one text. ``score`` and ``threshold`` are in [0, 1]; flagged when score >= threshold."""

    target_id: str
    revision: int
    guard: GuardName
    score: float
    threshold: float
    window: str  # the stretch of text that decided, shortened for people
    evidence: str  # what in the target it matched

    @property
    def key(self) -> str:
        """Of the target, as :attr:`ForgetTarget.key`."""
        return f"{self.target_id}@{self.revision}"

    @property
    def flagged(self) -> bool:
        """Whether the score reaches the threshold."""
        return self.score >= self.threshold


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the detectors say of one prompt. ``unavailable`` is a third outcome beside clean and flagged."""

    findings: tuple[Finding, ...] = ()
    unavailable: tuple[GuardName, ...] = ()
    detector_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A verdict asked for without generating, and whether the given completion would have been blocked."""

    verdict: Verdict
    completion_blocked: bool
    latency_ms: float


@dataclass(frozen=True, slots=True)
class ActiveTarget:
    """One target as it applies to one tenant, every toggle already resolved."""

    target: ForgetTarget
    action: str
    threshold: float | None  # None: the detector's own calibrated threshold
    mode: Mode
    gating: Gating = Gating.GATED
    auto: bool = False  # whether the action is only the default, for want of a choice made for the target
    floor: str | None = None  # what was named all the same: what is chosen counts only where it is stricter


@dataclass(frozen=True, slots=True)
class TenantPolicy:
    """Everything a request of one tenant needs, resolved when a snapshot is built and never changed after."""

    tenant: Tenant
    targets: dict[str, ActiveTarget] = field(default_factory=dict)  # by ForgetTarget.key
    guards: dict[GuardName, GuardToggle] = field(default_factory=dict)

    @property
    def idle(self) -> bool:
        """True when nothing can act on this tenant, so that its requests pass through untouched."""
        if not self.targets:
            return True
        if any(toggle.enabled for toggle in self.guards.values()):
            return False
        return all(active.gating is Gating.GATED for active in self.targets.values())


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be done with one request, and because of which findings."""

    action: str | None = None  # name of an intervention; None: serve as it is
    findings: tuple[Finding, ...] = ()  # those that decided
    unavailable: tuple[GuardName, ...] = ()
    monitored: tuple[Finding, ...] = ()  # would have decided, were their target not in monitor mode
