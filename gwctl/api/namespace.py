"""Namespace: its labels, which Gateways select routes by."""

from __future__ import annotations

from typing import ClassVar

from gwctl.api.meta import Object


class Namespace(Object):
    kind: ClassVar[str] = "Namespace"
    namespaced: ClassVar[bool] = False
    label_name: ClassVar[bool] = True
    unused: ClassVar[frozenset[str]] = Object.unused | {"spec"}
