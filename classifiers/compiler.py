"""From a profile to a compiled target: names, facts, evidence vectors, and how high benign text scores on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from classifiers.bank import BenignBank
from classifiers.calibration import fit_tail
from classifiers.compiled import Compiled
from classifiers.encoder import SentenceEncoder
from classifiers.facts import MAX_EVIDENCE, MAX_TEXT, extract, within
from classifiers.head import Head
from classifiers.naming import is_person, study
from classifiers.profile import Profile
from classifiers.words import is_known, split_words

#: The quantile of benign cosines that a target's similarity is compared with.
_BASELINE = 0.99


def compile_profile(profile: Profile, encoder: SentenceEncoder, bank: BenignBank, head: Head) -> Compiled:
    """Compile one target; deterministic. Costs one pass over its texts and one encoding of its evidence."""
    texts = [text for text in (profile.description, *profile.documents) if text.strip()]
    naming = study(profile.name, profile.aliases, list(within(texts, MAX_TEXT)))
    facts = extract(naming, texts)
    examples = [_joined(example) for example in profile.forget_examples][:MAX_EVIDENCE]
    person = is_person(profile.name, [*texts, *examples])
    evidence = list(dict.fromkeys([*facts.evidence, *examples])) or [profile.name, *profile.aliases]
    if not person and all(is_known(word.text) for word in split_words(profile.name)):
        evidence = [profile.name, *evidence]  # an encoder finds names that it does not know like all other such names
    retain = [_joined(example) for example in profile.retain_examples][:MAX_EVIDENCE]
    answers = dict.fromkeys(facts.evidence, 0)
    answers |= {_joined(example): len(example[0]) + 1 for example in profile.forget_examples if example[1]}
    vectors = encoder.encode([*evidence, *retain]).astype(np.float16)
    cosines = bank.cosines(vectors[: len(evidence)])
    target = Compiled(
        key=profile.key,
        phrases=naming.phrases,
        parts=naming.parts,
        own=naming.own,
        given=naming.given,
        terms={term: min(told, bank.cap(term)) for term, told in facts.terms.items()},
        words=facts.words,
        person=person,
        roles=facts.roles,
        evidence=(*evidence, *retain),
        vectors=vectors,
        answers=tuple(answers.get(text, len(text)) for text in (*evidence, *retain)),
        retain=len(retain),
        baseline=round(float(np.quantile(cosines, _BASELINE)), 4),
    )
    return replace(target, tail=fit_tail(bank.logits(target, head, cosines)))


def _joined(example: Sequence[str | None]) -> str:
    return " ".join(part for part in example if part)
