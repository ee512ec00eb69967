"""Opens the source of resources that the configuration names."""

from __future__ import annotations

from pathlib import Path

from gwctl.providers.file import FileSource
from gwctl.providers.source import Source
from gwctl.runtime.config import Config


def open_source(config: Config) -> Source:
    """Give the source; ``config.source`` is ``file:PATH``."""
    kind, _, path = config.source.partition(":")
    if kind == "file" and path:
        return FileSource(Path(path))
    raise ValueError(f"source {config.source!r} is not supported: use file:PATH")
