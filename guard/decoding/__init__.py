"""Constrained decoding: the tokens that would complete a protected phrase are never chosen.

A pure library: it knows nothing of the engine. :class:`Vocabulary` is made once for a served model,
:class:`PhraseSets` holds every target's phrases, and each output has a :class:`DecodingState`, whose masks
:func:`apply_masks` puts on the logits. The leak guard stays behind it.
"""

from guard.decoding.apply import apply_masks
from guard.decoding.automaton import Mask, PhraseAutomaton
from guard.decoding.phrases import PhraseSets
from guard.decoding.state import DecodingState
from guard.decoding.vocabulary import Vocabulary

__all__ = ["DecodingState", "Mask", "PhraseAutomaton", "PhraseSets", "Vocabulary", "apply_masks"]
