"""ObjectMeta: what we keep of an object's metadata, and the base of every resource.

The surprising fact: ``creationTimestamp`` may be missing (files have none). Such objects are as old as can
be, so that ties fall to namespace and name.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, StrictInt, StrictStr
from pydantic_core import PydanticCustomError

from gwctl.api.ref import Ref
from gwctl.api.wire import PartialWire, Violation, is_label, is_subdomain


def _read_time(value: Any) -> Any:
    # YAML turns a bare timestamp into a datetime of its own, JSON leaves the text.
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            value = None
    if not isinstance(value, datetime):
        raise PydanticCustomError("timestamp", "must be an RFC 3339 time such as 2026-01-31T12:00:00Z")
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:
        raise PydanticCustomError("timestamp", "is out of range") from None


Time = Annotated[datetime, BeforeValidator(_read_time)]
Text = Mapping[StrictStr, StrictStr]


class ObjectMeta(PartialWire):
    """The identity of an object and what orders it."""

    unused: ClassVar[frozenset[str]] = frozenset(
        {"generateName", "selfLink", "resourceVersion", "deletionGracePeriodSeconds", "ownerReferences",
         "finalizers", "managedFields", "clusterName"}
    )  # fmt: skip

    name: StrictStr
    namespace: StrictStr = ""
    uid: StrictStr = ""
    generation: StrictInt = 0
    creation_timestamp: Time | None = None
    deletion_timestamp: Time | None = None
    labels: Text = Field(default_factory=dict)
    annotations: Text = Field(default_factory=dict)

    @cached_property
    def created(self) -> str:
        """The creation time as text that sorts as the times do; empty when there is none."""
        time = self.creation_timestamp
        return "" if time is None else time.isoformat(timespec="microseconds")


def without_notes(manifest: Mapping[Any, Any]) -> dict[Any, Any]:
    """Copy a manifest without labels and annotations: kubectl writes the whole object into one of these."""
    kept = dict(manifest)
    metadata = manifest.get("metadata")
    if isinstance(metadata, Mapping):
        kept["metadata"] = {key: item for key, item in metadata.items() if key not in ("annotations", "labels")}
    return kept


class Object(PartialWire):
    """A resource. ``ref`` names it; ``age`` orders it: older first, then namespace, then name.

    ``echoes``: whether a message about a wrong value may repeat the value.
    """

    unused: ClassVar[frozenset[str]] = frozenset({"apiVersion", "kind", "status"})
    kind: ClassVar[str] = ""
    namespaced: ClassVar[bool] = True
    label_name: ClassVar[bool] = False
    echoes: ClassVar[bool] = True

    metadata: ObjectMeta

    @cached_property
    def ref(self) -> Ref:
        if not self.namespaced:
            return Ref(self.kind, "", self.metadata.name)
        return Ref(self.kind, self.metadata.namespace or "default", self.metadata.name)

    @cached_property
    def age(self) -> tuple[str, str]:
        """Order objects as the specification does: the oldest first, then by ``namespace/name``, as one text."""
        return (self.metadata.created, f"{self.ref.namespace}/{self.ref.name}")

    def check(self) -> list[Violation]:
        """The rules that span several fields."""
        found: list[Violation] = []
        name, namespace = self.metadata.name, self.metadata.namespace
        if self.label_name:
            if not is_label(name):
                found.append(Violation(("metadata", "name"), "must be a lowercase DNS label of at most 63 characters"))
        elif not is_subdomain(name):
            found.append(Violation(("metadata", "name"), "must be a lowercase DNS name of at most 253 characters"))
        if namespace and not is_label(namespace):
            message = "must be a lowercase DNS label of at most 63 characters"
            found.append(Violation(("metadata", "namespace"), message))
        return found


class Unreadable(Object):
    """Stands in for a resource that cannot be read, with what little is known of it.

    ``wrong``: pairs of a field and what is wrong with it.
    """

    wrong: tuple[tuple[StrictStr, StrictStr], ...]

    def check(self) -> list[Violation]:
        return Object.check(self)
