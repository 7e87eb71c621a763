"""What can be set from outside: each field as ``LETHE_<FIELD>`` or as a ``--lethe-<field>`` flag of ``lethe serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints
from pydantic_settings import BaseSettings, SettingsConfigDict

from guard.interventions import DEFAULT_REFUSAL
from guard.policy import REFUSE
from guard.types import Action


class Settings(BaseSettings):
    """Lethe's settings. Unknown flags are errors; LETHE_ variables that no field has are ignored."""

    model_config = SettingsConfigDict(env_prefix="LETHE_", extra="forbid", frozen=True, env_ignore_empty=True)

    database_url: str | None = Field(
        None,
        description="sqlite:///FILE or postgresql+psycopg://...; by default a file in the user's data folder.",
    )
    # Not SecretStr: its consumer hashes it at once, and repr=False keeps it out of logs.
    admin_key: Annotated[str, StringConstraints(strip_whitespace=True, min_length=16)] | None = Field(
        None,
        repr=False,
        description="The admin key, 16 characters or more; by default one is generated and printed at the first start.",
    )
    encoder: Path | None = Field(
        None, description="Folder of a sentence-transformers model; by default the packaged MiniLM."
    )
    false_alarm_rate: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.001, description="The share of benign prompts that one target's threshold may flag."
    )
    default_action: Action = Field(
        REFUSE, description='What the action "auto" means for targets for which none was chosen.'
    )
    refusal: Annotated[str, StringConstraints(min_length=1, max_length=2_000)] = Field(
        DEFAULT_REFUSAL, description="What is said instead of an answer, unless the tenant has its own words."
    )
    poll_interval: Annotated[float, Field(gt=0, le=60)] = Field(
        0.25, description="Seconds between looks at the database for changes made by other processes."
    )
    audit_retention_days: Annotated[int, Field(gt=0, le=36_500)] | None = Field(
        None, description="Days that audit entries are kept, at most 36,500; by default for ever."
    )
    sae: str | None = Field(
        None, description="A sparse autoencoder of the served model: a folder, a file, or a release of sae-lens."
    )
    sae_id: str | None = Field(None, description="Which autoencoder of a release.")
    sae_layer: Annotated[int, Field(ge=0)] | None = Field(
        None, description="The layer after which it reads, where the autoencoder does not say."
    )
    sae_norm_scaling: Annotated[float, Field(gt=0)] | None = Field(
        None, description="The factor of the activations, for an autoencoder that was trained on scaled ones."
    )
    private_prefix_cache: bool = Field(
        False,
        description="Have tenants share no prefix cache: else a tenant can tell, by the time or by cached_tokens, "
        "whether others sent a prompt that begins alike.",
    )
    open_metrics: bool = Field(True, description="Serve /metrics without a key.")
    max_admin_body_mb: Annotated[float, Field(gt=0)] = Field(
        64.0, description="The largest request body of the admin API, in MiB; larger ones get 413."
    )
    require_if_match: bool = Field(
        False, description="Refuse changes through the admin API that name no revision (If-Match) with 428."
    )
