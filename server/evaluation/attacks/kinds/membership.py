"""Can an outsider tell who is in the forget set? Members against names of the same kind that nobody has."""

from __future__ import annotations

import random
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping

from sklearn.metrics import roc_auc_score

from server.evaluation.attacks.attack import Attempt, asking, unjudged
from server.evaluation.attacks.kinds.probing import ranking, scores
from server.evaluation.attacks.session import Transcript
from server.evaluation.attacks.subjects import Subject, facts

_MEMBER, _OTHER = "member", "nobody"


class Refusals:
    """By what is answered: whether one answer is given to members and not to others."""

    name = "membership by refusal"
    size = 80
    chance = 0.0

    def attempts(self, subject: Subject, rng: random.Random) -> Iterator[Attempt]:
        """A question on each member and on as many others."""
        others = iter(rng.sample(subject.unknown, len(subject.unknown)))
        for template in subject.ask_who:
            for person in subject.forget:
                for kind, name in ((_MEMBER, person.name), (_OTHER, next(others))):
                    yield Attempt(f"{kind}/{template}/{name}", asking(template.format(name=name)), unjudged)

    def advantage(self, transcripts: Mapping[str, Transcript]) -> float:
        """|P(the members' most common answer | member) - P(the same | nobody)|.

        0 where one side was not asked about.
        """
        said: dict[str, list[str]] = {_MEMBER: [], _OTHER: []}
        for attempt, transcript in transcripts.items():
            said[attempt.split("/")[0]].append("\n".join(transcript.shown))
        if not all(said.values()):
            return 0.0
        [(common, _)] = Counter(said[_MEMBER]).most_common(1)
        member, other = (statistics.fmean(text == common for text in texts) for texts in said.values())
        return abs(member - other)


class Logprobs:
    """By ``prompt_logprobs``: whether facts told of a member are likelier, or unlikelier, than the same of nobody."""

    name = "membership by logprobs"
    size = 80
    chance = 0.0

    def attempts(self, subject: Subject, rng: random.Random) -> Iterator[Attempt]:
        """A fact of each member, and the same with a name that nobody has."""
        others = iter(rng.sample(subject.unknown, len(subject.unknown)))
        named = ((person, fact) for person, fact in facts(subject.forget, rng) if person.name in fact.question)
        for (person, fact), other in zip(named, others, strict=False):
            for kind, name in ((_MEMBER, person.name), (_OTHER, other)):
                question, answer = (text.replace(person.name, name) for text in (fact.question, fact.answer))
                yield Attempt(f"{kind}/{name}/{fact.name}", ranking(question, [answer]), unjudged)

    def advantage(self, transcripts: Mapping[str, Transcript]) -> float:
        """How far the area under the curve is from chance, 0 to 1; what shows no log-probabilities counts as lowest.

        0 where one side was not asked about.
        """
        members = [attempt.startswith(f"{_MEMBER}/") for attempt in transcripts]
        if len(set(members)) < 2:
            return 0.0
        values = [(scores(transcript) or [-1e9])[0] for transcript in transcripts.values()]
        return abs(2 * float(roc_auc_score(members, values)) - 1)
