"""Owns how limits are written on the command line, and how they are shown."""

import re
from typing import TYPE_CHECKING, Annotated

import typer

from llmproxy.cli import output

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llmproxy.limits import Limits
    from llmproxy.reports import LimitsUse

NONE = "none"
_COUNT = re.compile(r"[1-9]\d{0,11}", re.ASCII)
_PATTERN = re.compile(r"[^\s,*]+\*?|\*")
_PROVIDER = re.compile(r"[a-z0-9][a-z0-9._-]*")

Rpm = Annotated[
    str | None, typer.Option("--rpm", metavar="N", help="Requests per minute; none lifts it.")
]
Tpm = Annotated[
    str | None,
    typer.Option(
        "--tpm",
        metavar="N",
        help="Tokens per minute, in and out; none lifts it. They are counted when answers end: "
        "set --concurrent too.",
    ),
]
Concurrent = Annotated[
    str | None,
    typer.Option("--concurrent", metavar="N", help="Requests running at once; none lifts it."),
]
DailyBudget = Annotated[
    str | None,
    typer.Option("--daily-budget", metavar="USD", help="Most to spend on a day (UTC), or none."),
]
MonthlyBudget = Annotated[
    str | None,
    typer.Option("--monthly-budget", metavar="USD", help="Most to spend in a month, or none."),
]
SpendPerHour = Annotated[
    str | None,
    typer.Option(
        "--spend-per-hour",
        metavar="USD",
        help="Suspend the key when its last ten minutes were faster than this, or none.",
    ),
]
Models = Annotated[
    str | None,
    typer.Option("--models", metavar="IDS", help="Such as gpt-4o-mini,claude-*, or none."),
]
Providers = Annotated[
    str | None, typer.Option("--providers", metavar="NAMES", help="Such as openai,groq, or none.")
]
Networks = Annotated[
    str | None,
    typer.Option("--networks", metavar="CIDRS", help="Such as 10.0.0.0/8,::1, or none."),
]


def parse_rates(rpm: str | None, tpm: str | None, concurrent: str | None) -> dict[str, object]:
    """Return the changes that these options ask for; see `limit_store.set_key_limits`.

    Raises:
        typer.BadParameter: one is not as it must be.
    """
    return _parsed(
        {
            "requests_per_minute": ("--rpm", rpm, _count),
            "tokens_per_minute": ("--tpm", tpm, _count),
            "concurrent_max": ("--concurrent", concurrent, _count),
        }
    )


def parse_money(
    daily_budget: str | None, monthly_budget: str | None, spend_per_hour: str | None
) -> dict[str, object]:
    """Return the changes that these options ask for.

    Raises:
        MoneyError: one is no exact amount.
    """
    return _parsed(
        {
            "daily_budget_nanousd": ("--daily-budget", daily_budget, _amount),
            "monthly_budget_nanousd": ("--monthly-budget", monthly_budget, _amount),
            "spend_per_hour_nanousd": ("--spend-per-hour", spend_per_hour, _amount),
        }
    )


def parse_lists(
    models: str | None, providers: str | None, networks: str | None
) -> dict[str, object]:
    """Return the changes that these options ask for.

    Raises:
        typer.BadParameter: one is not as it must be.
    """
    return _parsed(
        {
            "models": ("--models", models, _models),
            "providers": ("--providers", providers, _providers),
            "networks": ("--networks", networks, _networks),
        }
    )


def _parsed(
    given: "Mapping[str, tuple[str, str | None, Callable[[str, str], object]]]",
) -> dict[str, object]:
    return {
        field: None if text == NONE else parse(text, option)
        for field, (option, text, parse) in given.items()
        if text is not None
    }


def _count(text: str, option: str) -> int:
    if not _COUNT.fullmatch(text):
        msg = f"{option} must be a whole number from 1, or none, not {text!r:.60}."
        raise typer.BadParameter(msg)
    return int(text)


def _amount(text: str, option: str) -> int:
    from llmproxy.money import parse_usd

    amount = parse_usd(text)
    if amount < 0:
        msg = f"{option} must not be below zero."
        raise typer.BadParameter(msg)
    return amount


def _members(text: str, option: str, pattern: re.Pattern[str], example: str) -> tuple[str, ...]:
    members = tuple(dict.fromkeys(each.strip() for each in text.split(",") if each.strip()))
    wrong = [each for each in members if not pattern.fullmatch(each)]
    if wrong or not members:
        msg = f"{option} must be a list such as {example}, or none, not {text!r:.60}."
        raise typer.BadParameter(msg)
    return members


def _models(text: str, option: str) -> tuple[str, ...]:
    """Return catalog ids and beginnings of them; an alias becomes the id that it stands for."""
    from llmproxy.cli import opening

    members = _members(text, option, _PATTERN, "gpt-4o-mini,claude-*")
    known = opening.catalog().models()
    ids: list[str] = []
    for member in members:
        found = [model.id for model in known if member in {model.id, *model.aliases}]
        if not found and not member.endswith("*"):
            output.say(f"Note: {member!r:.80} is not in the model catalog.")
        ids += found or [member]
    return tuple(dict.fromkeys(ids))


def _providers(text: str, option: str) -> tuple[str, ...]:
    return _members(text, option, _PROVIDER, "openai,groq")


def _networks(text: str, option: str) -> tuple[object, ...]:
    from llmproxy.limits import parse_networks

    try:
        networks = parse_networks(text)
    except ValueError as error:
        msg = f"{option} must be addresses or networks such as 10.0.0.0/8,::1: {error}."
        raise typer.BadParameter(msg) from error
    if not networks:
        msg = f"{option} must name at least one network, or none."
        raise typer.BadParameter(msg)
    return networks


def limit_fields(limits: "Limits | None", used: "LimitsUse | None") -> list[tuple[str, str]]:
    """Return labels and texts of the limits that are set, each with what is used of it."""
    from llmproxy.money import format_usd

    if limits is None:
        return [("limits", "none")]
    counts = (
        ("requests", limits.requests_per_minute, used and used.requests_last_minute, "per minute"),
        ("tokens", limits.tokens_per_minute, used and used.tokens_last_minute, "per minute"),
        ("at once", limits.concurrent_max, used and used.running, "requests"),
    )
    amounts = (
        ("daily budget", limits.daily_budget_nanousd, used and used.today, "today"),
        ("monthly budget", limits.monthly_budget_nanousd, used and used.month, "this month"),
        (
            "spend per hour",
            limits.spend_per_hour_nanousd,
            used and used.last_10_minutes,
            "in ten minutes",
        ),
    )
    fields = [
        (label, f"{most:,} {unit}" + ("" if now is None else f", {now:,} now"))
        for label, most, now, unit in counts
        if most is not None
    ]
    fields += [
        (
            label,
            f"{format_usd(most)} USD" + ("" if now is None else f", {format_usd(now)} {when}"),
        )
        for label, most, now, when in amounts
        if most is not None
    ]
    lists = (
        ("models", limits.models),
        ("providers", limits.providers),
        ("networks", limits.networks),
    )
    fields += [(label, ", ".join(map(str, each))) for label, each in lists if each is not None]
    return fields
