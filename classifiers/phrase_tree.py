"""The phrases of all targets as one radix tree over folded letters."""

from __future__ import annotations

from dataclasses import dataclass, field

from classifiers.folding import squeeze


@dataclass(slots=True, eq=False)
class Node:
    """A node of the tree; its root has an empty label.

    A node is never changed in a way that takes a phrase away from a reader standing in it, and a split replaces the
    node in its parent by one assignment, so that readers need no lock. Writers do.

    ``owners`` are the targets with a phrase at or below this node; ``ends`` maps those with phrases that end here to
    them, by the form of the phrase that does.
    """

    label: str
    owners: set[str] = field(default_factory=set)
    ends: dict[str, dict[str, str]] = field(default_factory=dict)
    children: dict[str, Node] = field(default_factory=dict)

    def insert(self, form: str, key: str, phrase: str) -> None:
        """Put a target's phrase below this root, to be found by the letters of ``form``."""
        node, rest = self, squeeze(form)
        node.owners.add(key)
        while rest:
            child = node.children.get(rest[0])
            if child is None:
                node.children[rest[0]] = Node(rest, {key}, {key: {form: phrase}})
                return
            shared = _common_prefix(child.label, rest)
            if shared < len(child.label):
                lower = Node(child.label[shared:], child.owners, child.ends, child.children)
                child = Node(child.label[:shared], set(child.owners), {}, {lower.label[0]: lower})
                node.children[rest[0]] = child
            child.owners.add(key)
            node, rest = child, rest[shared:]
        node.ends[key] = {form: phrase} | node.ends.get(key, {})

    def remove(self, form: str, key: str) -> None:
        """Take a target's phrase away again; what is not there is ignored."""
        path, node, rest = [], self, squeeze(form)
        while rest:
            child = node.children.get(rest[0])
            if child is None or not rest.startswith(child.label):
                return
            path.append((node, child))
            node, rest = child, rest[len(child.label) :]
        node.ends.pop(key, None)
        for parent, child in reversed(path):
            if key in child.ends or any(key in below.owners for below in child.children.values()):
                break
            child.owners.discard(key)
            if not child.owners:
                parent.children.pop(child.label[0], None)
        if not any(key in child.owners for child in self.children.values()):
            self.owners.discard(key)

    def ends_within(self, offset: int, letters: str, start: int) -> bool:
        """Whether a phrase read down to ``label[:offset]`` ends in ``letters[start:]``, wherever words do."""
        below: Node | None = self
        rest = self.label[offset:]
        while below is not None and letters.startswith(rest, start):
            if rest and below.ends:
                return True
            start += len(rest)
            below = below.children.get(letters[start : start + 1])
            rest = below.label if below is not None else ""
        return False


def _common_prefix(left: str, right: str) -> int:
    return next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
