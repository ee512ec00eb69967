"""Conditions: problems of one condition type in, one condition out.

The reason is that of the first problem, the message names the field of each. The surprising fact: in the Gateway API a
condition that is true for the good has its own type as its reason (``Accepted``/``Accepted``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from gwctl.graph.node import Problem

MESSAGE_LIMIT = 4096
"""Longest message in characters. The CRDs allow 32 KiB, but a route with 32 parents must fit into etcd."""

NOTE = "; but "
"""What stands between good news and what they leave out."""

TYPES = frozenset(
    {"Accepted", "Conflicted", "InsecureFrontendValidationMode", "OverlappingTLSConfig", "PartiallyInvalid",
     "Programmed", "ResolvedRefs", "SupportedVersion"}
)  # fmt: skip
"""Every type of condition that gwctl writes. Those of others are never touched."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition without what only its object knows: observedGeneration and lastTransitionTime.

    ``generation`` is what it is about, where that is an earlier one than that of its status; None otherwise.
    """

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str
    generation: int | None = None


def about(conditions: Iterable[Condition], generation: int | None) -> tuple[Condition, ...]:
    """Say what generation conditions are about; None: that of their status."""
    return tuple(replace(condition, generation=generation) for condition in conditions)


def judge(kind: str, problems: Sequence[Problem], message: str) -> Condition:
    """Give a condition that is true unless there are problems; ``message`` is for when it is true."""
    if problems:
        return Condition(kind, "False", problems[0].reason, list_problems(problems))
    return Condition(kind, "True", kind, message)


def warn(kind: str, problems: Sequence[Problem], prefix: str = "") -> tuple[Condition, ...]:
    """Give a condition that exists only when there are problems, and is true then."""
    if not problems:
        return ()
    return (Condition(kind, "True", problems[0].reason, list_problems(problems, prefix)),)


def select(problems: Iterable[Problem], *conditions: str) -> list[Problem]:
    """The problems that these conditions tell, in their order."""
    return [problem for problem in problems if problem.condition in conditions]


def other(problems: Iterable[Problem], conditions: Collection[str]) -> list[Problem]:
    """The problems for which their object has no condition."""
    return [problem for problem in problems if problem.condition not in conditions]


def with_notes(message: str, problems: Sequence[Problem]) -> str:
    """A message that tells problems too for which there is no condition."""
    return list_problems(problems, f"{message}{NOTE}") if problems else message


def list_problems(problems: Iterable[Problem], prefix: str = "") -> str:
    """Every problem with its field, as far as a message may be long; then how many more there are."""
    texts = [f"{problem.field}: {problem.message.removeprefix(prefix)}" for problem in problems]
    return join(texts, prefix)


def join(texts: Sequence[str], prefix: str = "") -> str:
    """Texts behind each other, as far as a message may be long; then how many more there are."""
    message = prefix
    for index, text in enumerate(texts):
        rest = len(texts) - index - 1
        longer = f"{message}; {text}" if index else f"{message}{text}"
        room = MESSAGE_LIMIT - len(_more(rest))
        if len(longer) > room:
            return f"{message}{_more(rest + 1)}" if index else f"{longer[: room - 1]}…{_more(rest)}"
        message = longer
    return message


def _more(number: int) -> str:
    return f"; and {number} more" if number else ""
