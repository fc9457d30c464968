"""Owns what a check of `doctor` is, and how checks are printed."""

from typing import NamedTuple

from llmproxy.cli import output


class Check(NamedTuple):
    """One line: `status` is ok, warn or fail; `advice` says what to do unless it is ok."""

    name: str
    status: str
    message: str
    advice: str | None = None


def print_checks(checks: list[Check]) -> None:
    """Print checks for a person, each with what to do below it."""
    width = max(len(check.name) for check in checks)
    for check in checks:
        status = output.coloured(check.status, 4)
        output.print_hanging(f"{status}  {check.name.ljust(width)}  ", check.message, width + 8)
        if check.advice:
            output.print_hanging(" " * (width + 8) + "→ ", check.advice, width + 10)
