"""Conditions from problems: which reason, which message, and how long it may get."""

from __future__ import annotations

import pytest

from gwctl.api.ref import Ref
from gwctl.graph.node import Problem
from gwctl.status.condition import MESSAGE_LIMIT, Condition, join, judge, list_problems, warn


def problem(field: str, message: str = "is wrong", reason: str = "Reason") -> Problem:
    return Problem(Ref("HTTPRoute", "default", "r"), field, "Accepted", reason, message)


def test_a_condition_without_problems_is_true_and_its_own_reason() -> None:
    assert judge("Accepted", [], "fine") == Condition("Accepted", "True", "Accepted", "fine")
    assert warn("PartiallyInvalid", []) == ()


def test_the_first_problem_gives_the_reason_and_all_are_told() -> None:
    found = judge("Accepted", [problem("spec.a", reason="First"), problem("spec.b", reason="Second")], "fine")
    assert found == Condition("Accepted", "False", "First", "spec.a: is wrong; spec.b: is wrong")


def test_a_prefix_is_said_once() -> None:
    problems = [problem("spec.a", "Dropped Rule: one"), problem("spec.b", "Dropped Rule: two"), problem("spec.c")]
    (found,) = warn("PartiallyInvalid", problems, "Dropped Rule: ")
    assert (found.status, found.message) == ("True", "Dropped Rule: spec.a: one; spec.b: two; spec.c: is wrong")


def test_a_long_message_says_how_many_more_there_are() -> None:
    text = list_problems([problem(f"spec.rules[{index}]", "x" * 100) for index in range(1000)])
    assert MESSAGE_LIMIT - 150 < len(text) <= MESSAGE_LIMIT
    told = text.count("spec.rules[")
    assert text.endswith(f"{'x' * 100}; and {1000 - told} more")


@pytest.mark.parametrize("more", [0, 1, 5])
def test_a_single_text_that_is_too_long_is_cut(more: int) -> None:
    text = join(["x" * 10_000, *(["y"] * more)], "prefix: ")
    assert len(text) == MESSAGE_LIMIT
    assert text.startswith("prefix: xxx")
    assert text.endswith(f"x…; and {more} more" if more else "x…")


def test_what_just_fits_is_not_cut() -> None:
    assert join(["x" * MESSAGE_LIMIT]) == "x" * MESSAGE_LIMIT
    two = ["x" * (MESSAGE_LIMIT - 103), "y" * 101]
    assert join(two) == "; ".join(two)
    assert join([two[0], "y" * 102]) == f"{two[0]}; and 1 more"
