"""What goes in and out of the admin API beyond the specs of ``guard.types``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from classifiers.instruction import understand
from guard.audit import AuditEntry
from guard.store import ToggleRow
from guard.types import (
    Action,
    ApiKey,
    Document,
    Example,
    ForgetTarget,
    Gating,
    GuardName,
    GuardToggle,
    Mode,
    Name,
    Phrase,
    RunLength,
    Scope,
    Score,
    TargetKind,
    TargetSpec,
    TargetToggle,
    Tenant,
    TenantSpec,
    ToolName,
)

ItemT = TypeVar("ItemT")


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("out of range") from error


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
Text = Annotated[str, StringConstraints(max_length=10_000_000)]

#: ``active``: in force on this process. ``dry_run``: this is what would be.
Status = Literal["active", "dry_run"]


class Page(BaseModel, Generic[ItemT]):
    """A part of a list. ``next`` is the ``after`` of the part that follows, null at the end."""

    data: list[ItemT]
    next: str | None = None


class _Patch(BaseModel):
    """A JSON merge patch (RFC 7396): only the fields that are given change."""

    model_config = ConfigDict(extra="forbid")

    def merged(self, spec: BaseModel) -> dict[str, Any]:
        """The fields of ``spec`` with those of the patch on top, to be validated."""
        return {**spec.model_dump(), **self.model_dump(exclude_unset=True)}


class TargetPatch(_Patch):
    """Changes to a target."""

    name: Name = ""
    kind: TargetKind = TargetKind.KNOWLEDGE
    description: Annotated[str, StringConstraints(max_length=20_000)] = ""
    aliases: tuple[Phrase, ...] = ()
    documents: tuple[Document, ...] = ()
    forget_examples: tuple[Example | Phrase, ...] = ()
    retain_examples: tuple[Example | Phrase, ...] = ()
    protected_phrases: tuple[Phrase, ...] = ()
    tools: tuple[ToolName, ...] = ()
    verbatim_run: RunLength = 10
    mode: Mode = Mode.ENFORCE
    all_tenants: bool = False
    locked: bool = False
    action: Action = "auto"
    gating: Gating = Gating.GATED
    threshold: Score | None = None


class TargetIn(TargetSpec):
    """A target to register: its fields, or an `instruction` in plain words ("please forget everything about ...")."""

    instruction: Annotated[str, StringConstraints(max_length=2_000)] = ""

    @model_validator(mode="before")
    @classmethod
    def _in_plain_words(cls, value: object) -> object:
        if not isinstance(value, dict) or not isinstance(value.get("instruction"), str):
            return value
        if "name" in value:
            raise ValueError("give a name or an instruction, not both")
        understood = understand(value["instruction"])
        if understood is None:
            raise ValueError("the instruction asks to forget nothing; say what, or give a name")
        said = {"name": understood.name, "aliases": understood.aliases, "description": understood.scope}
        return {**{field: text for field, text in said.items() if text}, **value, "mode": Mode.MONITOR}

    def spec(self) -> TargetSpec:
        """The target as it is registered."""
        return TargetSpec.model_construct(**{name: getattr(self, name) for name in TargetSpec.model_fields})


class Understanding(BaseModel):
    """What was understood of an instruction. The target only watches until it is confirmed."""

    name: str
    aliases: tuple[str, ...]
    scope: str
    kept: str = Field(description="What shall be kept, in the asker's words; nothing is done about it.")
    questions: list[str] = Field(description="Some of what will be asked to measure the forgetting.")
    confirm: str = Field(description="Send an empty POST there to enforce it.")


class TenantPatch(_Patch):
    """Changes to a tenant."""

    name: Name = ""
    anonymous: bool = False
    self_service: bool = False
    audit_prompts: bool = False
    refusal: Annotated[str, StringConstraints(min_length=1, max_length=2000)] | None = None


class TargetOut(TargetSpec):
    """A target with all that was said of it."""

    id: str
    revision: int
    status: Status = "active"
    created_at: datetime
    updated_at: datetime
    understood: Understanding | None = None

    @classmethod
    def of(cls, target: ForgetTarget, *, dry_run: bool = False, understood: Understanding | None = None) -> TargetOut:
        """``target`` as the API shows it."""
        return cls.model_construct(
            understood=understood,
            **dict(target.spec),
            id=target.id,
            revision=target.revision,
            status="dry_run" if dry_run else "active",
            created_at=target.created_at,
            updated_at=target.updated_at,
        )


class TargetSummary(BaseModel):
    """A target in a list: long texts are counted, not repeated."""

    id: str
    revision: int
    name: str
    kind: TargetKind
    mode: Mode
    all_tenants: bool
    locked: bool
    action: str
    gating: Gating
    threshold: float | None
    aliases: int
    documents: int
    forget_examples: int
    retain_examples: int
    protected_phrases: int
    tools: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, target: ForgetTarget) -> TargetSummary:
        """``target`` as lists show it."""
        spec = target.spec
        return cls(
            id=target.id,
            revision=target.revision,
            name=spec.name,
            kind=spec.kind,
            mode=spec.mode,
            all_tenants=spec.all_tenants,
            locked=spec.locked,
            action=spec.action,
            gating=spec.gating,
            threshold=spec.threshold,
            aliases=len(spec.aliases),
            documents=len(spec.documents),
            forget_examples=len(spec.forget_examples),
            retain_examples=len(spec.retain_examples),
            protected_phrases=len(spec.protected_phrases),
            tools=len(spec.tools),
            created_at=target.created_at,
            updated_at=target.updated_at,
        )


class TenantOut(TenantSpec):
    """A tenant."""

    id: str
    revision: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, tenant: Tenant, **more: Any) -> Self:
        """``tenant`` as the API shows it, with ``more`` fields of a subclass."""
        return cls(
            **dict(tenant.spec),
            id=tenant.id,
            revision=tenant.revision,
            created_at=tenant.created_at,
            updated_at=tenant.updated_at,
            **more,
        )


class TenantCreated(TenantOut):
    """A new tenant with its key, which cannot be seen again. Null in a dry run."""

    status: Status
    api_key: str | None
    key_id: str | None


class KeyOut(BaseModel):
    """A key as it can be listed: how it begins, never the whole of it."""

    id: str
    scope: Scope
    tenant_id: str | None
    prefix: str
    created_at: datetime
    revoked_at: datetime | None

    @classmethod
    def of(cls, key: ApiKey) -> KeyOut:
        """``key`` as lists show it."""
        return cls(
            id=key.id,
            scope=key.scope,
            tenant_id=key.tenant_id,
            prefix=key.prefix,
            created_at=key.created_at,
            revoked_at=key.revoked_at,
        )


class KeyRequest(BaseModel):
    """How to make a new key."""

    model_config = ConfigDict(extra="forbid")

    revoke_others: bool = Field(default=True, description="End the validity of the tenant's other keys at once.")


class KeyCreated(BaseModel):
    """A new key, which cannot be seen again. Null in a dry run."""

    id: str
    scope: Scope
    tenant_id: str | None
    api_key: str | None
    status: Status
    revoked: int = Field(description="How many other keys ended their validity.")


class TargetToggleOut(TargetToggle):
    """How a tenant uses a target."""

    tenant_id: str
    target_id: str
    revision: int

    @classmethod
    def of(cls, row: ToggleRow[TargetToggle]) -> TargetToggleOut:
        """``row`` as the API shows it."""
        return cls(**dict(row.toggle), tenant_id=row.tenant_id, target_id=row.subject, revision=row.revision)


class GuardToggleOut(GuardToggle):
    """How a tenant uses a guard. Revision 0: nothing was said, these are the defaults."""

    tenant_id: str
    guard: GuardName
    revision: int

    @classmethod
    def of(cls, row: ToggleRow[GuardToggle]) -> GuardToggleOut:
        """``row`` as the API shows it."""
        return cls(**dict(row.toggle), tenant_id=row.tenant_id, guard=GuardName(row.subject), revision=row.revision)


class TextPart(BaseModel):
    """A part of a message; parts other than text are not judged here."""

    type: str = "text"
    text: Text = ""


class ChatMessage(BaseModel):
    """A message of a conversation, as in a chat completion request. Further fields are ignored."""

    role: str = "user"
    content: Text | list[TextPart] | None = None

    def text(self) -> str:
        """All text of the message."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class CheckRequest(BaseModel):
    """A conversation or a prompt to judge on behalf of a tenant, and an answer to it."""

    model_config = ConfigDict(extra="forbid")

    tenant: Annotated[str, StringConstraints(min_length=1, max_length=200)] = Field(description="Id or name.")
    messages: list[ChatMessage] | None = Field(None, min_length=1, max_length=10_000)
    prompt: Text | None = None
    completion: Text | None = None

    @model_validator(mode="after")
    def _one_input(self) -> CheckRequest:
        if (self.messages is None) == (self.prompt is None):
            raise ValueError("give either messages or prompt")
        return self

    def segments(self) -> list[str]:
        """The texts to judge, one per message."""
        if self.messages is None:
            return [self.prompt or ""]
        return [message.text() for message in self.messages]


class FindingOut(BaseModel):
    """One target seen in the text. Flagged when the score reaches the threshold."""

    target: str
    target_name: str | None
    revision: int
    guard: GuardName
    score: float
    threshold: float
    flagged: bool
    window: str
    evidence: str


class CheckOut(BaseModel):
    """A verdict. ``action`` is what would be done with the request; null: it would be served as it is."""

    flagged: bool
    action: str | None
    findings: list[FindingOut]
    completion_blocked: bool
    unavailable: list[GuardName]
    latency_ms: float


class AuditFindingOut(BaseModel):
    """One flagged target of an entry. ``window`` is null unless the tenant has ``audit_prompts``."""

    model_config = ConfigDict(from_attributes=True)

    target_id: str
    target_revision: int
    guard: GuardName
    mode: Mode
    score: float
    threshold: float
    window_sha256: str
    window: str | None


class AuditEntryOut(BaseModel):
    """One request on which something was found or could not be judged.

    ``action`` null: served as it was; ``partial``: answered without the sentences that speak of a target.
    """

    model_config = ConfigDict(from_attributes=True)

    id: int
    time: datetime
    request_id: str
    tenant_id: str
    key_id: str | None
    surface: str
    action: str | None
    findings: list[AuditFindingOut]
    unavailable: list[GuardName]
    prompt_sha256: str
    prompt: str | None
    detector_ms: float
    total_ms: float

    @classmethod
    def of(cls, entry: AuditEntry) -> AuditEntryOut:
        """``entry`` as the API shows it."""
        return cls.model_validate(entry)


class StatusOut(BaseModel):
    """The state that this process serves by."""

    revision: int
    healthy: bool = Field(description="Whether it was in step with the database when last looked at.")
    targets: int
    tenants: int
    anonymous: bool = Field(description="Whether requests without a key are served, as the default tenant.")
    actions: list[str]
    guards: list[GuardName]
