"""Any value of the pure core as plain JSON values, for printing.

The surprising facts: a whole resource is printed as its name, since it is the reader's own input, and fields
that are left out of a dataclass's ``repr`` (what the next computation builds upon) are left out here too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

import yaml
from pydantic import BaseModel

from gwctl.api.meta import Object
from gwctl.routing.rule import PathKey

_WIDTH = 110


def to_plain(value: object) -> Any:
    """Give the value as mappings, lists, texts and numbers; mappings are sorted, None is left out."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return str(value.value) if isinstance(value, Enum) else value
    if isinstance(value, Object):
        return str(value.ref)
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return key_text(value) if _is_name(value) else _without_none(value._asdict())
    if is_dataclass(value):
        shown = {field.name: (getattr(value, field.name), field.default) for field in fields(value) if field.repr}
        # A part that says nothing is left out: the filters of a rule without any, and what is exceptionally true.
        return _without_none(
            {
                name: item
                for name, (item, default) in shown.items()
                if not ((is_dataclass(item) or item is False or item == ()) and item == default)
            }
        )
    if isinstance(value, Mapping):
        items = sorted((key_text(key), item) for key, item in value.items()) if value else []
        return {key: to_plain(item) for key, item in items}
    if isinstance(value, Set):
        return sorted(map(to_plain, value), key=str)
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    raise TypeError(f"cannot print a {type(value).__name__}")


def key_text(key: object) -> str:
    """Give the name that a value has as a key: ``default/gw/http example.com``, ``prefix /v2``."""
    if isinstance(key, PathKey):
        return f"{key.kind} {key.value or '/'}"
    if isinstance(key, tuple):
        if type(key).__str__ is not object.__str__ and type(key).__str__ is not tuple.__str__:
            return str(key)
        separator = " " if any(isinstance(part, tuple) for part in key) else "/"
        return separator.join(key_text(part) for part in key if part not in ("", None))
    return str(key.value) if isinstance(key, Enum) else str(key)


def _is_name(value: tuple[object, ...]) -> bool:
    """Tell whether a named tuple does nothing but name something."""
    return type(value).__name__ in (
        "Ref",
        "ListenerKey",
        "FrontendKey",
        "VirtualHost",
        "PathKey",
        "ServicePort",
    )


def _without_none(items: Mapping[str, object]) -> dict[str, Any]:
    return {name: to_plain(item) for name, item in items.items() if item is not None}


def to_text(value: object, output: str) -> str:
    """Write plain values as ``yaml`` or ``json``."""
    if output == "json":
        return json.dumps(value, indent=2, ensure_ascii=False)
    text: str = yaml.dump(
        value,
        Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper),
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=None,
        width=_WIDTH,
    )
    return text.rstrip("\n")
