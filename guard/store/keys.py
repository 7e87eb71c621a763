"""API keys and object ids: how they are made, recognised and hashed."""

from __future__ import annotations

import hashlib
import secrets
import time

from guard.types import Scope

_BRAND = "lethe-"


def new_key(scope: Scope) -> str:
    """A fresh key, ``lethe-<scope>-<32 random bytes, URL-safe>``. Shown once, never stored."""
    return f"{_BRAND}{scope.value}-{secrets.token_urlsafe(32)}"


def looks_like_ours(key: str) -> bool:
    """Whether ``key`` claims to be one of Lethe's: a wrong one is then an error, not a client's placeholder."""
    return key.startswith(_BRAND)


def hash_key(key: str) -> str:
    """SHA-256 in hex. Keys carry 256 random bits, so a slow password hash would protect nothing more."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def display_prefix(key: str) -> str:
    """As much of ``key`` as a list may show: its scope and four random characters, nothing of a key of other make."""
    scope, _, secret = key.removeprefix(_BRAND).partition("-")
    return f"{_BRAND}{scope}-{secret[:4]}" if looks_like_ours(key) and secret else ""


def new_id(kind: str) -> str:
    """An id such as ``tgt_019e...``: milliseconds first, so that ids sort by creation and can serve as list cursors."""
    return f"{kind}_{time.time_ns() // 1_000_000:011x}{secrets.token_hex(6)}"
