"""Owns the proof of one hold: its end, its charge, its request and its price agree.

Each check is a generator of what is wrong, in words; `ledger_check.py` reads the rows and reports.
Money is nano-USD. Pure.
"""

import sqlite3
from collections.abc import Callable, Iterator

import msgspec

from llmproxy.money import cost_nanousd, format_usd
from llmproxy.pricing import Line, PricedModel, price
from llmproxy.usage import Leg, Usage


def hold_problems(
    row: sqlite3.Row, versions: dict[int, PricedModel], count: Callable[[str], object]
) -> Iterator[str]:
    """Yield what is wrong with a row of what `ledger_check.py` selects.

    Args:
        row: the hold.
        versions: every price version that can be read, by its id.
        count: called with the kind of each further thing that was checked.
    """
    if row["wallet_user_id"] != row["key_user_id"]:
        yield "its wallet and its API key belong to different users"
    if row["amount_nanousd"] < 0 or row["seen_cost_nanousd"] < 0:
        yield "what it holds or has seen is below zero"
    if (row["idempotency_hash"] is None) != (row["body_hash"] is None):
        yield "has only one of the hashes of its idempotency key and of what was asked with it"
    yield from _open_problems(row) if row["state"] == "open" else _end_problems(row)
    yield from _charge_problems(row)
    if row["request_id"] is not None and row["state"] != "open":
        yield from _request_problems(row)
        yield from _price_problems(row, versions, count)


def _open_problems(row: sqlite3.Row) -> Iterator[str]:
    """A start ends what an earlier one left open: an open hold is the newest one's."""
    if row["boot_id"] != row["newest_boot_id"]:
        yield "is open, but belongs to an earlier start of the server"
    ends = ("basis", "cost_nanousd", "charged_nanousd", "shortfall_nanousd", "ended_at_ms")
    for column in ends:
        if row[column] is not None:
            yield f"is open, but has {column} {row[column]}"
    if row["request_id"] is not None:
        yield f"is open, but its request is {row['request_state']}"


def _end_problems(row: sqlite3.Row) -> Iterator[str]:
    cost, charged, owed = row["cost_nanousd"], row["charged_nanousd"], row["shortfall_nanousd"]
    if None in {cost, charged, owed, row["basis"], row["ended_at_ms"]}:
        yield f"is {row['state']}, but its end is not complete"
        return
    if cost != charged + owed:
        yield (
            f"cost {format_usd(cost)} is not charged {format_usd(charged)} "
            f"+ shortfall {format_usd(owed)}"
        )
    if row["state"] == "released" and (cost or charged):
        yield f"is released, but cost {format_usd(cost)} and charged {format_usd(charged)}"
    seen = row["seen_cost_nanousd"]
    if row["state"] == "expired" and (cost, charged) != (seen, min(seen, row["amount_nanousd"])):
        yield (
            f"is expired, but cost {format_usd(cost)} and charged {format_usd(charged)} are not "
            f"by what had been seen: {format_usd(seen)}"
        )
    if row["basis"] == "hold" and cost != row["amount_nanousd"]:
        yield (
            f"is charged by its hold of {format_usd(row['amount_nanousd'])}, "
            f"but cost {format_usd(cost)}"
        )
    if row["basis"] not in _bases(row["state"], seen):
        yield f"is {row['state']}, but its basis is {row['basis']}"
    if charged > row["amount_nanousd"] >= cost:
        yield f"charged {format_usd(charged)}, above what it held and what the answer cost"
    if owed and charged < row["amount_nanousd"]:
        yield f"leaves a shortfall of {format_usd(owed)}, but charged less than it held"


def _bases(state: str, seen_nanousd: int) -> frozenset[str]:
    """Return by what a hold that ended so may have been charged."""
    if state == "settled":
        return frozenset({"usage", "estimate", "hold"})
    return frozenset({"estimate" if state == "expired" and seen_nanousd else "none"})


def _charge_problems(row: sqlite3.Row) -> Iterator[str]:
    charged = row["charged_nanousd"] or 0
    if row["transfer_id"] is None:
        if charged:
            yield f"charged {format_usd(charged)}, but has no transfer"
        return
    moved = row["transfer_nanousd"]
    if moved != -charged or row["transfer_kind"] != "charge":
        yield (
            f"charged {format_usd(charged)}, but transfer {row['transfer_id']} is a "
            f"{row['transfer_kind']} of {format_usd(moved)}"
        )
    if row["transfer_wallet_id"] != row["wallet_id"]:
        yield f"transfer {row['transfer_id']} moved money of another wallet"


_REQUEST_AGREES = (
    ("state", "request_state"),
    ("basis", "request_basis"),
    ("amount_nanousd", "request_hold"),
    ("cost_nanousd", "request_cost"),
    ("charged_nanousd", "request_charged"),
    ("shortfall_nanousd", "request_shortfall"),
    ("wallet_user_id", "request_user_id"),
    ("api_key_id", "request_api_key_id"),
    ("endpoint", "request_endpoint"),
    ("created_at_ms", "request_created_at_ms"),
    ("asked_provider", "request_provider"),
    ("asked_model", "request_model"),
)


def _request_problems(row: sqlite3.Row) -> Iterator[str]:
    for own, theirs in _REQUEST_AGREES:
        if row[own] != row[theirs]:
            yield f"{own} is {row[own]}, its request says {row[theirs]}"


def _price_problems(
    row: sqlite3.Row, versions: dict[int, PricedModel], count: Callable[[str], object]
) -> Iterator[str]:
    """The receipt's lines multiply to the cost, and so does the usage at the pinned prices."""
    try:
        lines = msgspec.json.decode(row["request_receipt"] or "null", type=tuple[Line, ...] | None)
        usage = msgspec.json.decode(row["request_usage"] or "null", type=Usage | None)
    except msgspec.DecodeError as error:
        yield f"its usage or receipt cannot be read: {error}"
        return
    cost = row["cost_nanousd"]
    is_measured = row["state"] == "settled" and row["basis"] in {"usage", "estimate"}
    if lines is not None:
        count("receipts")
        total = cost_nanousd(
            sum(line.rated_tokens for line in lines),
            row["user_multiplier_micro"],
            row["model_multiplier_micro"],
        )
        if total != cost:
            yield f"cost {format_usd(cost)}, but its receipt sums to {format_usd(total)}"
    elif is_measured and cost:
        yield f"cost {format_usd(cost)}, but has no receipt"
    if not is_measured:
        return
    if usage is None:
        yield f"is settled by {row['basis']}, but no usage is kept"
        return
    pinned = _pinned(row, lines or (), versions)
    if _is_all_pinned(usage, pinned, row["asked_model"]):
        count("usages_repriced")
        yield from _repriced_problems(row, lines, usage, pinned)


def _pinned(
    row: sqlite3.Row, lines: tuple[Line, ...], versions: dict[int, PricedModel]
) -> dict[str, PricedModel]:
    """Return the prices that the hold and the lines of its receipt pin, by the model's name there.

    That may be another than the prices were stored under: a leg has a name of its own.
    """
    ids = {line.model: line.price_version for line in lines}
    ids[row["asked_model"]] = row["price_version_id"]
    return {
        model: msgspec.structs.replace(versions[id_], id=model)
        for model, id_ in ids.items()
        if id_ in versions
    }


def _is_all_pinned(usage: Usage, pinned: dict[str, PricedModel], asked: str) -> bool:
    """Say whether the prices of every leg are pinned, but of one of nothing, which has no line.

    Receipts of older versions name none for the leg of another model: its rates stand in the
    receipt alone, and that the lines sum to the cost is all that can be proven.
    """
    names = {leg.model for leg in usage.legs if leg.model and leg != Leg(model=leg.model)}
    return {asked, *names} <= pinned.keys()


def _repriced_problems(
    row: sqlite3.Row,
    lines: tuple[Line, ...] | None,
    usage: Usage,
    pinned: dict[str, PricedModel],
) -> Iterator[str]:
    again = price(
        usage,
        pinned[row["asked_model"]],
        user_multiplier_micro=row["user_multiplier_micro"],
        model_multiplier_micro=row["model_multiplier_micro"],
        other_model=lambda name: pinned.get(name, pinned[row["asked_model"]]),
    )
    cost = row["cost_nanousd"]
    if again.nanousd != cost:
        yield f"cost {format_usd(cost)}, but its usage prices to {format_usd(again.nanousd)}"
    elif lines is not None and _amounts(lines) != _amounts(again.lines):
        yield "its receipt has other lines than its usage at the pinned prices"


def _amounts(lines: tuple[Line, ...]) -> list[tuple[str, str, int, int, int | None]]:
    return [
        (line.model, line.usage_class, line.quantity, line.rate, line.price_version)
        for line in lines
    ]
