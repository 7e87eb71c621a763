"""The attacks: one file for each, or for a few of one make."""

from __future__ import annotations

from collections.abc import Mapping

from server.evaluation.attacks.attack import Attack
from server.evaluation.attacks.kinds.begun import Prefill
from server.evaluation.attacks.kinds.disguise import Disguise
from server.evaluation.attacks.kinds.membership import Answers, Logprobs
from server.evaluation.attacks.kinds.plain import Plain
from server.evaluation.attacks.kinds.probing import Alternatives, Extraction, Piecewise, Ranking
from server.evaluation.attacks.kinds.questions import (
    CrossLingual,
    FewShot,
    MultipleChoice,
    Nameless,
    Paraphrase,
    Reintroduction,
    Reverse,
    Synonyms,
)
from server.evaluation.attacks.kinds.sampling import Sampling, Unprompted
from server.evaluation.attacks.kinds.shaped import Grammar, Json, Streaming
from server.evaluation.attacks.kinds.tenants import Confusion
from server.evaluation.attacks.kinds.turns import Decomposition, Mixed, SelfCorrection
from server.evaluation.attacks.kinds.wrapped import WRAPPED

_ALL: tuple[Attack, ...] = (
    Plain(),
    Paraphrase(),
    *WRAPPED,
    MultipleChoice(),
    Reverse(),
    Nameless(),
    Synonyms(),
    FewShot(),
    CrossLingual(),
    Reintroduction(),
    Decomposition(),
    SelfCorrection(),
    Mixed(),
    Disguise(),
    Prefill(),
    Sampling(1.0),
    Sampling(1.5),
    Unprompted(),
    Streaming(),
    Json(),
    Alternatives(),
    Extraction(),
    Piecewise(),
    Confusion(),
    Ranking(),
    Grammar(),
    Answers(),
    Logprobs(),
)

#: Every attack, by name, in the order of the matrix.
ATTACKS: Mapping[str, Attack] = {attack.name: attack for attack in _ALL}
