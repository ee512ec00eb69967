"""Private keys that tests have made, and whether a text gives one away."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from functools import cache

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from tests.certificates import KEYS_MADE

_WINDOW = 32
"""So many characters of a key, in PEM or in base64 of that as Secrets have it, give it away."""


def find_keys(texts: Iterable[str]) -> list[str]:
    """Find what of the keys that tests have made is in texts; empty where nothing is."""
    pieces = {"PRIVATE KEY", *(piece for key in KEYS_MADE for piece in _pieces(key))}
    return sorted({piece for text in texts for piece in pieces if piece in text})


@cache
def _pieces(key: str) -> frozenset[str]:
    """Give the parts of a key, but for those that its certificate has as well."""
    public = load_pem_private_key(key.encode(), None).public_key()
    known = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    lines = [line for line in key.splitlines() if not line.startswith("---")]
    in_pem = (piece for line in lines for piece in _windows(line) if base64.b64decode(piece) not in known)
    return frozenset((*in_pem, *_windows(base64.b64encode(key.encode()).decode())))


def _windows(text: str) -> Iterator[str]:
    yield from (text[start : start + _WINDOW] for start in range(0, len(text) - _WINDOW + 1, _WINDOW))
