"""The attacks: one file for each, or for a few of one make."""

from __future__ import annotations

from collections.abc import Mapping

from server.evaluation.attacks.attack import Attack
from server.evaluation.attacks.kinds.plain import Plain
from server.evaluation.attacks.kinds.wrapped import WRAPPED

_ALL: tuple[Attack, ...] = (Plain(), *WRAPPED)

#: Every attack, by name, in the order of the matrix.
ATTACKS: Mapping[str, Attack] = {attack.name: attack for attack in _ALL}
