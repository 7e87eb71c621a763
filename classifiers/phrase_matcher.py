"""Reading one stream of text for protected phrases; what counts as one is told in :mod:`classifiers.phrase_index`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from classifiers.escapes import ESCAPE, open_at, unescape
from classifiers.folding import LETTER_SIGNS, fold, squeeze
from classifiers.glyphs import Glyph, glyph, is_hump, starts
from classifiers.phrase_tree import Node
from classifiers.phrases import MIN_DISTINCT_LETTERS, MIN_LOOSE_LETTERS, breaks, folded_words, is_open_ended, needs_end
from classifiers.words import longer_words

#: A phrase that is not whole tells most of itself from this share of its letters on, if they are so many.
_MOST, _MIN_TOLD = 2 / 3, 6
#: Branches that are not worth looking through for those that stand at the same place.
_FEW = 16

_SPACE = Glyph("", "", separates=True, upper=False, lower=False, digit=False, spaceless=False)


class Match(NamedTuple):
    """A phrase found at ``text[start:end]``; ``start`` is negative when it began in the primed text."""

    start: int
    end: int
    key: str
    phrase: str


class _Placed(NamedTuple):
    """A character, or an escape that stands for one, at ``[start, end)``; mere decoration reads as None."""

    start: int
    end: int
    glyph: Glyph | None


class Branch(NamedTuple):
    """A phrase begun at ``start`` of which the letters down to ``node.label[:offset]`` have been read.

    ``inside`` a word, at a capital, only phrases of :data:`classifiers.phrases.MIN_DISTINCT_LETTERS` and more begin.
    """

    node: Node
    offset: int
    start: int
    inside: bool


def may_complete(text: str, root: Node, branches: Iterable[Branch]) -> bool:
    """Whether ``text`` may end a phrase that begins in it or that one of ``branches`` has begun. A no is certain."""
    if "\\" in text or not LETTER_SIGNS.keys().isdisjoint(text):
        return True  # how its signs are to be read is the matcher's to find out
    letters = squeeze(text)
    begun = any(branch.node.ends_within(branch.offset, letters, 0) for branch in branches)
    return begun or any(root.ends_within(0, letters, start) for start in range(len(letters)))


def _outermost(branches: Iterable[Branch]) -> list[Branch]:
    """Of the branches that stand at the same place the first and the last begun.

    What comes will end them all alike, so that those between tell nothing more; and "!!!!", where every sign may be a
    separator or a letter, would have as many as it has signs.
    """
    first: dict[tuple[int, int, bool], Branch] = {}
    last: dict[tuple[int, int, bool], Branch] = {}
    for branch in sorted(branches, key=lambda one: one.start):
        place = id(branch.node), branch.offset, branch.inside
        first.setdefault(place, branch)
        last[place] = branch
    return [*first.values(), *(branch for place, branch in last.items() if branch is not first[place])]


class _Complete(NamedTuple):
    """A whole phrase, in one of its forms, of which it is to be seen whether it is part of another word.

    ``more`` are the letters of the word that have followed.
    """

    match: Match
    form: str
    more: str

    def followed(self, letters: str) -> _Complete | None:
        """The same after more letters of the word; None where it can be no other word any more."""
        more = self.more + letters
        return self._replace(more=more) if more in longer_words(self.form).beginnings else None

    @property
    def is_other_word(self) -> bool:
        """Whether it is one if the word ends here."""
        return not needs_end(self.form) and self.more in longer_words(self.form).words


class PhraseMatcher:
    """Reads one stream of text piece by piece. Positions count characters from the start of the stream.

    Attributes:
        found: every phrase that the last call of :meth:`feed` or :meth:`finish` found complete, the first one first:
            phrases may end at the same place, and targets share them.
    """

    def __init__(
        self, root: Node, keys: frozenset[str], prompt_tail: str = "", ignored: frozenset[str] = frozenset()
    ) -> None:
        self._root = root
        self._keys = keys
        self._ignored = ignored
        self._text = ""  # the stretch that may still matter, from self._origin on
        self._origin = -len(prompt_tail)
        self._position = self._origin  # first character not yet read
        self._live: list[Branch] = []
        self._complete: list[_Complete] = []  # whole phrases of which it is not clear yet whether they count
        self._previous: Glyph | None = None
        self.found: list[Match] = []
        if prompt_tail:
            self._read(prompt_tail, final=False)
            self._complete = []  # what is whole before the stream begins is none of its
            self._previous = None

    @property
    def safe(self) -> int:
        """How many characters of the stream can no longer become part of a match."""
        held = [branch.start for branch in self._live] + [one.match.start for one in self._complete]
        return max(0, min(held, default=self._position))

    def feed(self, text: str) -> Match | None:
        """Read the next piece; return the first phrase that is now complete, if any."""
        return self._read(text, final=False)

    def finish(self) -> Match | None:
        """Say that the stream has ended; return a phrase that ends with it, if any."""
        found = self._read("", final=True)
        if found is None:
            self.found = sorted(self._end_words())
        return next(iter(self.found), None)

    def every(self, text: str) -> Iterator[Match]:
        """All phrases in the rest of the stream, which is ``text``, as they are completed."""
        self.feed(text)
        while self.found or self.finish():
            yield from self.found
            self.feed("")  # the rest is here already: the reading stopped at what was found

    def fork(self) -> PhraseMatcher:
        """A matcher that has read the same and reads on by itself."""
        fork = PhraseMatcher.__new__(PhraseMatcher)
        fork.__dict__.update(self.__dict__)
        fork._live, fork._complete, fork.found = list(self._live), list(self._complete), list(self.found)
        return fork

    def unfinished(self) -> Match | None:
        """The first phrase within a word of which the stream ends, but of which it tells most: the rest is easily
        guessed. Where it ends with a word of the phrase, it may as well speak of another "Christopher".
        """
        found = []
        for branch in self._live:
            read = len(squeeze(self._text[branch.start - self._origin :]))
            if read >= _MIN_TOLD and self._position > 0:
                found += self._ahead(branch, int(read * (1 - _MOST) / _MOST))
        return min(found, default=None)

    def _ahead(self, branch: Branch, letters: int) -> list[Match]:
        """The phrases that at most so many letters after a branch would complete."""
        found, reached = [], [(branch.node, len(branch.node.label) - branch.offset)]
        while reached:
            node, left = reached.pop()
            if left > letters or node.owners.isdisjoint(self._keys):
                continue
            ends = ((key, *one) for key, some in list(node.ends.items()) for one in some.items())
            found += [
                Match(branch.start, self._position, key, phrase)
                for key, form, phrase in ends
                if left and key in self._keys and phrase not in self._ignored and not breaks(form, left)
            ]
            reached += [(child, left + len(child.label)) for child in list(node.children.values())]
        return found

    def would_match(self, text: str) -> bool:
        """Whether a phrase would be complete if ``text`` came next and ended the stream; changes nothing."""
        all_read = self._position == self._origin + len(self._text)
        if all_read and not may_complete(text, self._root, self._live):
            return False
        return any(found.end > self._position for found in self.fork().every(text))

    def _read(self, text: str, *, final: bool) -> Match | None:
        self._text += text
        for placed in self._glyphs(final):
            found = () if placed.glyph is None else self._step(placed.glyph, placed.start, placed.end)
            self._position = placed.end
            if found and (ended := sorted(one for one in found if one.end > 0)):
                self.found = ended
                return ended[0]
        self._trim()
        self.found = []
        return None

    def _trim(self) -> None:
        keep_from = min([self._position, *(b.start for b in self._live), *(one.match.start for one in self._complete)])
        self._text = self._text[keep_from - self._origin :]
        self._origin = keep_from

    def _glyphs(self, final: bool) -> Iterator[_Placed]:
        text, origin = self._text, self._origin
        index = self._position - origin
        stop = len(text) if final else open_at(text, index)
        while index < stop:
            end, found = index + 1, glyph(text[index])
            if text[index] == "\\" and (escape := ESCAPE.match(text, index)):
                end, found = escape.end(), _escaped(escape.group())
            yield _Placed(origin + index, origin + end, found)
            index = end

    def _step(self, glyph: Glyph, start: int, end: int) -> list[Match]:
        """Read one character; the phrases that are complete with it."""
        previous, self._previous = self._previous, glyph
        hump = previous is not None and is_hump(previous, glyph)
        found: list[Match] = []
        if self._complete:
            found = self._end_words() if glyph.separates or hump else self._read_on(glyph.letters)
        begins = previous is None or starts(previous, glyph)
        live = list(self._live) if glyph.separates else []
        arrivals = self._live
        if begins or glyph.upper:
            arrivals = [*self._live, Branch(self._root, 0, start, inside=not begins)]
        for branch in arrivals:
            for letters in filter(None, (glyph.letters, glyph.maybe)):
                advanced, ends = self._advance(branch, letters, end)
                if advanced is not None:
                    live.append(advanced)
                for one, rest in ends:
                    if glyph.spaceless or glyph.separates or is_open_ended(one.form):
                        found.append(one.match)  # it is over with this character, or counts whatever follows
                    elif needs_end(one.form):
                        self._complete += [one] if not rest else []
                    elif (longer := one.followed(rest)) is not None:
                        self._complete.append(longer)
                    else:
                        found.append(one.match)
        self._live = live if len(live) <= _FEW else _outermost(live)
        return found

    def _end_words(self) -> list[Match]:
        """The word ends: the phrases that count."""
        complete, self._complete = self._complete, []
        return [one.match for one in complete if not one.is_other_word]

    def _read_on(self, letters: str) -> list[Match]:
        """The word goes on: the phrases that count, since there is no such word."""
        complete, self._complete = self._complete, []
        found: list[Match] = []
        for one in complete:
            if needs_end(one.form):
                continue
            if (longer := one.followed(letters)) is not None:
                self._complete.append(longer)
            else:
                found.append(one.match)
        return found

    def _advance(self, branch: Branch, letters: str, end: int) -> tuple[Branch | None, list[tuple[_Complete, str]]]:
        """The branch after a character that ends at ``end``, if phrases go on there, and the phrases that end in it,
        each with the letters of it that follow.
        """
        node, offset = branch.node, branch.offset
        ends: list[tuple[_Complete, str]] = []
        for number, letter in enumerate(letters, 1):
            if offset < len(node.label):
                if node.label[offset] != letter:
                    return None, ends
            else:
                child = node.children.get(letter)
                if child is None or child.owners.isdisjoint(self._keys):
                    return None, ends
                node, offset = child, 0
            offset += 1
            if offset == len(node.label):
                ends += [(one, letters[number:]) for one in self._ends(node, branch, end)]
        if offset == len(node.label) and not any(
            not child.owners.isdisjoint(self._keys) for child in list(node.children.values())
        ):
            return None, ends
        return branch._replace(node=node, offset=offset), ends

    def _ends(self, node: Node, branch: Branch, end: int) -> Iterator[_Complete]:
        """The phrases that end at ``node``."""
        ends = ((key, *one) for key, some in list(node.ends.items()) if key in self._keys for one in some.items())
        for key, form, phrase in ends:
            if (
                phrase not in self._ignored
                and (not branch.inside or len(squeeze(form)) >= MIN_DISTINCT_LETTERS)
                and self._keeps_word_breaks(form, branch.start, end)
            ):
                yield _Complete(Match(branch.start, end, key, phrase), form, "")

    def _keeps_word_breaks(self, phrase: str, start: int, end: int) -> bool:
        """Short phrases must not be pieced together from the ends of other words."""
        if len(squeeze(phrase)) >= MIN_LOOSE_LETTERS:
            return True
        written = self._text[start - self._origin : end - self._origin]
        # A sign read as a letter is none of a word's, and of many in a row each would have all before it read again.
        return bool(fold(written[-1])) and folded_words(written) == folded_words(phrase)


def _escaped(escape: str) -> Glyph | None:
    """How a JSON escape reads: as its character, or as a space where the letter may be one after a lone backslash."""
    if escape[1] == "u":
        found = glyph(unescape(escape))
        return found and found._replace(maybe="")
    return _SPACE._replace(maybe=fold(escape[1]))
