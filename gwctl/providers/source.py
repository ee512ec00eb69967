"""What a source of resources gives: first everything, then every change.

The surprising fact: a source never says what is current, only what became different; its reader keeps a
Snapshot.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from gwctl.api.parse import Invalid, Resource
from gwctl.api.ref import Ref


class SourceError(Exception):
    """A source cannot be read at all. The message is one sentence for the user."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What became different at one moment.

    ``changes``: the new resource, None where it is gone. ``invalid``: everything that is wrong with the
    objects of the source right now, what earlier batches said included.
    """

    changes: Mapping[Ref, Resource | None]
    invalid: tuple[Invalid, ...]


class Source(Protocol):
    """A source of resources."""

    def batches(self) -> AsyncIterator[Batch]:
        """Give the complete state first, then one batch for each burst of events; never ends by itself.

        Raises `SourceError` when the source cannot be read at the start.
        """
        ...
