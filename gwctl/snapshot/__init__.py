"""Every resource at one moment, frozen and indexed."""

from gwctl.api.parse import Resource
from gwctl.snapshot.snapshot import Snapshot

__all__ = ["Resource", "Snapshot"]
