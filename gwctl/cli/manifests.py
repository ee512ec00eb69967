"""Manifests through the controller's own pure steps, for the commands that need no cluster and no HAProxy."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from gwctl.api.parse import Invalid
from gwctl.cli.failure import Failure
from gwctl.graph.node import Problem
from gwctl.providers.file import FileSource
from gwctl.providers.source import SourceError
from gwctl.runtime.pipeline import Pipeline, advance, not_told


class Result(NamedTuple):
    """What manifests gave."""

    pipeline: Pipeline
    invalid: tuple[Invalid, ...]


class Finding(NamedTuple):
    """A problem as it is printed. ``condition`` is empty for what is wrong in a manifest itself."""

    object: str
    field: str
    condition: str
    reason: str
    message: str

    def __str__(self) -> str:
        where = f" {self.field}" if self.field else ""
        kind = f"{self.condition}/{self.reason}" if self.condition else self.reason
        return one_line(f"{self.object}{where}: {kind}: {self.message}")


def read_pipeline(path: Path, controller_name: str) -> Result:
    """Read manifests and take them through all steps."""
    try:
        batch = FileSource(path).read()
    except SourceError as error:
        raise Failure(str(error)) from None
    return Result(advance(None, batch.changes, controller_name), batch.invalid)


def find_findings(result: Result) -> list[Finding]:
    """Give every problem once, sorted by object and field."""
    problems = not_told(result.pipeline.problems, result.invalid)
    return sorted({*_invalid(result.invalid), *_problems(problems)})


def _invalid(invalid: Iterable[Invalid]) -> Iterable[Finding]:
    return (Finding(str(item.subject), item.field, "", item.reason, item.message) for item in invalid)


def _problems(problems: Iterable[Problem]) -> Iterable[Finding]:
    for item in problems:
        message = item.message if item.listener is None else f"{item.message} (listener {item.listener})"
        yield Finding(str(item.subject), item.field, item.condition, item.reason, message)


def one_line(text: str) -> str:
    """Escape what would break a line or is no printable character."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode() for char in text
    )
