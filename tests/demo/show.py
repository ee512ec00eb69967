"""How the demo prints: steps, rows of facts, and colour where a terminal can show it."""

from __future__ import annotations

import os
import sys

_COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ


def bold(text: str) -> str:
    """Make a text stand out."""
    return f"\033[1m{text}\033[0m" if _COLOUR else text


def dim(text: str) -> str:
    """Put a text in the background."""
    return f"\033[2m{text}\033[0m" if _COLOUR else text


def good(text: str) -> str:
    """Mark what is as promised."""
    return f"\033[32m{text}\033[0m" if _COLOUR else text


def bad(text: str) -> str:
    """Mark what is not."""
    return f"\033[31m{text}\033[0m" if _COLOUR else text


def step(title: str) -> None:
    """Begin a step."""
    print(f"\n{bold(title)}", flush=True)


def line(text: str = "") -> None:
    """Print a line of a step."""
    print(f"  {text}" if text else "", flush=True)
