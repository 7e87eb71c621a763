"""The text detector: which of the targets that a tenant has on does a conversation speak of?

A conversation is read in windows, without its disguises (:mod:`classifiers.normalise`). Names are looked up in a
lexicon and settle the matter; parts of names, facts and similarity to evidence sentences become features, which a small
trained head turns into one score per target, and the target's own calibrated threshold decides.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import numpy as np

from classifiers import calibration
from classifiers.bank import BenignBank, digest
from classifiers.benign import prompts
from classifiers.compiled import Compiled
from classifiers.compiler import compile_profile
from classifiers.encoder import SentenceEncoder
from classifiers.escapes import paired
from classifiers.features import FEATURES, Reading, names_in
from classifiers.head import Head, shipped
from classifiers.index import EvidenceIndex
from classifiers.lexicon import Lexicon
from classifiers.matching import Pair, Slot, View, compare
from classifiers.normalise import hidden, plain
from classifiers.phrase_matcher import Match
from classifiers.profile import Profile
from classifiers.results import Hit, Scan
from classifiers.windows import Window, newest, split
from classifiers.words import split_words

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

#: Changes whenever the same profile would compile to something else.
_ALGORITHM = "11"
LEXICON, SEMANTIC = "lexicon", "semantic"

#: How many targets a window is compared with in full: the best by words, and those with the nearest evidence rows.
_BY_WORDS, _BY_ROWS = 12, 6
#: Evidence rows looked up for each passage; several may belong to one target.
_ROWS = 24
#: Windows judged before other requests get a turn on the event loop.
_TURN = 8
#: Texts longer than this, in characters, are read in a thread: of signs that may be letters it takes some 20 µs each.
_LONG = 2000
#: Longest window shown to people, in characters.
_SHOWN = 240
#: Who the self-test looks for, with two texts that speak of her and one that does not.
PROBE = Profile(
    "self-test@1",
    "Ada Testwell",
    description="Ada Testwell is a lighthouse keeper from Port Ellery who invented the folding telescope in 1883.",
)
NAMED = "Please tell me everything about ada testwell."
DESCRIBED = "In which year did the lighthouse keeper from Port Ellery invent the folding telescope?"
UNRELATED = "How long do I bake sourdough bread?"
_NAME_FEATURES = slice(FEATURES.index("alone"), FEATURES.index("uncased_usage") + 1)


@dataclass(slots=True)
class _Best:
    """The best that one scan has found for one target."""

    logit: float
    window: str
    evidence: str
    lexicon: bool
    named: bool = field(default=False)


class TextDetector:
    """Lexicon, evidence index and head for all targets; asked on behalf of one tenant at a time.

    ``compile`` may be called from any thread, ``add``, ``discard`` and ``view`` too; ``scan`` runs on an event loop
    and keeps what it found in the view that it was given.

    Args:
        encoder: a sentence-transformers folder, or an encoder to share; None for the packaged all-MiniLM-L6-v2.
        false_alarm_rate: accepted share of benign prompts that are flagged; see :mod:`classifiers.calibration`.
        window_budget: how many characters of a conversation are looked at; the newest come first.
        head: replaces the shipped head; for training.
    """

    def __init__(
        self,
        encoder: SentenceEncoder | str | Path | None = None,
        *,
        false_alarm_rate: float = 0.001,
        window_budget: int = 200_000,
        head: Head | None = None,
    ) -> None:
        self._encoder = encoder if isinstance(encoder, SentenceEncoder) else SentenceEncoder(encoder)
        self._rate = false_alarm_rate
        self._budget = window_budget
        self._head = head or shipped()
        self._lexicon = Lexicon()
        self._index = EvidenceIndex(self._encoder.dimension)
        self._slots: dict[str, Slot] = {}
        self._numbers = count()
        self._released: deque[tuple[int, Compiled]] = deque()  # slots nobody refers to any more
        self._lock = Lock()
        self._bank: BenignBank | None = None
        self._bank_lock = Lock()
        identity = f"{self._encoder.fingerprint}:{self._head.fingerprint}:{digest(prompts())}:{_ALGORITHM}"
        self.fingerprint = hashlib.sha256(identity.encode()).hexdigest()[:16]

    @property
    def encoder(self) -> SentenceEncoder:
        """What makes the vectors of targets and windows; for others that compare with them."""
        return self._encoder

    @property
    def bank(self) -> BenignBank:
        """The benign prompts that targets are calibrated on; encoded on first use, which takes seconds once."""
        with self._bank_lock:
            if self._bank is None:
                self._bank = BenignBank(self._encoder)
            return self._bank

    def compile(self, profile: Profile) -> Compiled:
        """Turn a profile into what :meth:`add` takes. Blocking, thread-safe, deterministic."""
        return compile_profile(profile, self._encoder, self.bank, self._head)

    def add(self, compiled: Compiled) -> None:
        """Make a target available to new views; a known key is replaced."""
        words = [split_words(text) for text in compiled.evidence]
        sentences = tuple(tuple(word.key for word in one) for one in words)
        with self._lock:
            self._sweep()
            slot = Slot(next(self._numbers), compiled, sentences, tuple(map(names_in, words)))
            self._lexicon.add(slot.number, compiled)
            self._index.add(slot.number, compiled.vectors[: len(compiled.evidence) - compiled.retain])
            weakref.finalize(slot, self._released.append, (slot.number, compiled)).atexit = False
            self._slots[compiled.key] = slot

    def discard(self, key: str) -> None:
        """Take a target away from new views; unknown keys are ignored."""
        with self._lock:
            self._slots.pop(key, None)
            self._sweep()

    def view(self, keys: Iterable[str]) -> View:
        """What one tenant may match; keys that were not added are left out."""
        with self._lock:
            slots = {slot.number: slot for key in keys if (slot := self._slots.get(key)) is not None}
            return View(slots, frozenset(map(str, slots)), self._index.select(slots))

    def close(self) -> None:
        """Stop the encoder; scans after this have it unavailable."""
        self._encoder.close()

    async def scan(
        self,
        segments: Sequence[str],
        view: View,
        *,
        lexicon: bool = True,
        semantic: bool = True,
        thresholds: Mapping[str, float] | None = None,
        scored: frozenset[str] = frozenset(),
        deadline: float | None = None,
    ) -> Scan:
        """Look for the targets of ``view`` in a conversation.

        Args:
            segments: its texts, oldest first.
            view: whose targets.
            lexicon: whether names and parts of names count.
            semantic: whether similarity to evidence counts.
            thresholds: by target key, instead of the calibrated ones.
            scored: keys of targets that are told of however low their score; of others only what comes near.
            deadline: seconds after which the encoder counts as unavailable.
        """
        if not view.slots or not (lexicon or semantic):
            return Scan()
        texts, unscanned = newest(segments, self._budget)
        how = lexicon, semantic, frozenset((thresholds or {}).items()), scored
        keys = {text: (_digest(text), how) for text in texts}
        hits = {text: known for text, key in keys.items() if (known := view.seen.get(key)) is not None}
        fresh = [text for text in keys if text not in hits]
        spellings, room = {}, self._budget
        for text in fresh:
            spellings[text] = await _apart(_spellings, text, room)
            room -= sum(map(len, spellings[text]))
        beyond = -room
        if beyond > 0:  # so much is hidden in it that not all of it can be judged: what it says plainly must do
            room, unscanned = self._budget // len(fresh), unscanned + beyond
            spellings = {text: [every[0][-room:]] for text, every in spellings.items()}
        found, complete = await self._found(spellings, view, lexicon, semantic, deadline)
        for text, best in zip(fresh, found, strict=True):
            hits[text] = self._hits(best, view, thresholds or {}, scored)
            if complete and beyond <= 0:
                view.seen[keys[text]] = hits[text]
        return Scan(_best_of(hits.values()), () if complete else (SEMANTIC,), unscanned)

    async def _found(
        self, spellings: Mapping[str, Sequence[str]], view: View, lexicon: bool, semantic: bool, deadline: float | None
    ) -> tuple[list[dict[int, _Best]], bool]:
        """What each text says of the targets of ``view``, and whether the encoder judged too if it was to.

        Args:
            spellings: of each text, without its disguises.
            view, lexicon, semantic, deadline: see :meth:`scan`.
        """
        cut = [split(every) for every in spellings.values()]
        windows = [window for mine in cut for window in mine]
        owners = [number for number, mine in enumerate(cut) for _ in mine]
        encoding = asyncio.ensure_future(self._encode(windows, view, deadline)) if semantic and windows else None
        best: list[dict[int, _Best]] = [{} for _ in spellings]
        if lexicon:
            for (text, every), mine in zip(spellings.items(), best, strict=True):
                for spelled in dict.fromkeys([text, *every]):
                    for number, match in await _apart(self._lexicon.named, spelled, view.names):
                        mine.setdefault(number, _Best(np.inf, _around(spelled, match), match.phrase, True, True))
        vectors = await encoding if encoding is not None else None
        start = 0
        for first in range(0, len(windows), _TURN):
            turn = windows[first : first + _TURN]
            size = sum(len(window.passages) for window in turn)
            rows = None if vectors is None else vectors[start : start + size]
            self._judge(turn, rows, view, lexicon, [best[owner] for owner in owners[first : first + _TURN]])
            start += size
            await asyncio.sleep(0)
        return best, not encoding or vectors is not None

    def pairs(self, windows: Sequence[Window], vectors: np.ndarray | None, view: View) -> list[Pair]:
        """Compare windows with the targets that they may speak of.

        Args:
            windows: the text.
            vectors: float32 ``(passages of all windows, dimension)``; None when the encoder cannot judge.
            view: whose targets.
        """
        near = [[] for _ in windows] if vectors is None else self._index.search(vectors, view.rows, _ROWS)
        found: list[Pair] = []
        start = 0
        for window in windows:
            passages = slice(start, start + len(window.passages))
            start = passages.stop
            reading = Reading.of(self._lexicon.corrected(split_words(window.text)))
            numbers = dict.fromkeys(self._lexicon.candidates(reading, view.slots.keys(), _BY_WORDS))
            if vectors is not None:
                numbers |= dict.fromkeys(number for row in near[passages] for number in row[:_BY_ROWS])
            slots = [slot for number in numbers if (slot := view.slots.get(number)) is not None]
            own = None if vectors is None else vectors[passages]
            found += [compare(window, reading, slot, own) for slot in slots]
        return found

    def self_test(self) -> Mapping[str, bool]:
        """Whether each guard still tells a known positive from a known negative. Blocking; touches no shared state."""
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, self._self_test()).result()

    async def _self_test(self) -> dict[str, bool]:
        probe = TextDetector(self._encoder, head=self._head)
        probe._bank = self._bank
        try:
            target = probe.compile(PROBE)
        except Exception:
            logger.exception("The self-test target cannot be compiled")
            return {LEXICON: False, SEMANTIC: False}
        probe.add(target)
        view = probe.view([PROBE.key])
        result = {}
        for guard, positive in ((LEXICON, NAMED), (SEMANTIC, DESCRIBED)):
            by_lexicon = guard == LEXICON
            high = await probe.scan([positive], view, lexicon=by_lexicon, semantic=not by_lexicon)
            low = await probe.scan([UNRELATED], view, lexicon=by_lexicon, semantic=not by_lexicon)
            result[guard] = any(hit.flagged for hit in high.hits) and not (low.hits or low.unavailable)
        return result

    async def _encode(self, windows: Sequence[Window], view: View, deadline: float | None) -> np.ndarray | None:
        """Embeddings of all passages, or None when the encoder failed or was too late.

        Views take turns at the encoder, and each tenant has its own. The encoder is told which one by a number: it may
        hold what it is told longer than the view shall live.
        """
        passages = [passage for window in windows for passage in window.passages]
        try:
            return await asyncio.wait_for(self._encoder.encode_async(passages, owner=id(view)), deadline)
        except TimeoutError:
            logger.warning("The sentence encoder missed its deadline of %s s", deadline)
        except Exception:
            logger.exception("The sentence encoder failed")
        return None

    def _judge(
        self,
        windows: Sequence[Window],
        vectors: np.ndarray | None,
        view: View,
        lexicon: bool,
        best: Sequence[dict[int, _Best]],
    ) -> None:
        """Score ``windows`` against their candidates and keep the best of each target in the ``best`` of each."""
        pairs = self.pairs(windows, vectors, view)
        if not pairs:
            return
        features = np.array([pair.features for pair in pairs])
        persons = np.array([pair.slot.target.person for pair in pairs])
        others = np.array([pair.of_others for pair in pairs])
        logits = self._head.logits(features, persons, others)
        without = logits.copy()  # what it says of names; most texts say nothing of them
        if (part := features[:, _NAME_FEATURES].any(axis=1)).any():
            nameless = features[part]
            nameless[:, _NAME_FEATURES] = 0.0
            without[part] = self._head.logits(nameless, persons[part], others[part])
        if not lexicon:
            logits = without
        of = {id(window): mine for window, mine in zip(windows, best, strict=True)}
        for pair, logit, bare in zip(pairs, logits.tolist(), without.tolist(), strict=True):
            named = lexicon and pair.named
            mine = of[id(pair.window)]
            known = mine.get(pair.slot.number)
            if known is None or (named and not known.named) or (logit > known.logit):
                by_name = named or logit - bare > 1.0
                mine[pair.slot.number] = _Best(
                    np.inf if named else logit, _shown(pair.window.text), pair.evidence, by_name, named
                )

    def _hits(
        self, best: Mapping[int, _Best], view: View, thresholds: Mapping[str, float], scored: frozenset[str]
    ) -> tuple[Hit, ...]:
        hits = []
        for number, found in best.items():
            target = view.slots[number].target
            bar = thresholds.get(target.key)
            if bar is None:
                bar = calibration.probability(calibration.threshold(target.tail, self._rate, len(view)))
            score = 1.0 if found.named else calibration.probability(found.logit)
            if score >= bar / 2 or target.key in scored:
                guard = LEXICON if found.lexicon else SEMANTIC
                hits.append(Hit(target.key, guard, round(score, 4), round(bar, 4), found.window, found.evidence))
        return tuple(hits)

    def _sweep(self) -> None:
        """Take out of the indexes what no view refers to any more. Called with the lock held."""
        while self._released:
            number, compiled = self._released.popleft()
            self._lexicon.remove(number, compiled)
            self._index.remove(number)


async def _apart(read: Callable[..., _T], text: str, *rest: Any) -> _T:
    """What ``read`` makes of ``text``, which holds up nobody else on the event loop however long it is."""
    if len(text) > _LONG:
        return await asyncio.to_thread(read, text, *rest)
    await asyncio.sleep(0)
    return read(text, *rest)


def _spellings(text: str, room: int) -> list[str]:
    """``text`` and what is hidden in it, without disguises, up to the one that takes more than ``room`` characters."""
    found = {(spelled := plain(text)): None}
    room -= len(spelled)
    inside = hidden(text)
    while room >= 0 and (one := next(inside, None)) is not None:
        if (spelled := plain(one)) not in found:
            found[spelled] = None
            room -= len(spelled)
    return list(found)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()


def _best_of(some: Iterable[Sequence[Hit]]) -> tuple[Hit, ...]:
    """The best hit of each target, best first."""
    best: dict[str, Hit] = {}
    for hit in (hit for hits in some for hit in hits):
        if hit.key not in best or hit.score > best[hit.key].score:
            best[hit.key] = hit
    return tuple(sorted(best.values(), key=lambda hit: (-hit.score, hit.key)))


def _around(text: str, match: Match) -> str:
    """The text around a match, shortened."""
    start = max(0, match.start - _SHOWN // 3)
    return paired(text[start : start + _SHOWN].strip())


def _shown(text: str) -> str:
    return paired(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…")
