"""What `catalog update` shows of last week's requests: their cost by the newer catalog."""

from typing import TYPE_CHECKING

from llmproxy.cli import opening, output
from llmproxy.cli.output import Column
from llmproxy.cli.progress import progress

if TYPE_CHECKING:
    from llmproxy.catalog import Catalog
    from llmproxy.rerating import Rerating, Sum

USERS_SHOWN_MAX = 20


def rerate_last_days(catalog: "Catalog") -> "Rerating | None":
    """Price the last days' requests by a catalog that has the entries of the operator's own.

    Shows a bar on a terminal: a million requests take some 13 s. None without a database.
    """
    from llmproxy.rerating import DAY_MS, DAYS, rerate

    if not opening.database_exists():  # a look at prices must not make one
        return None
    until_ms = opening.now_ms()
    with opening.database() as database, progress("Rating again") as report:
        since_ms = until_ms - DAYS * DAY_MS
        return rerate(
            database.read, catalog, since_ms=since_ms, until_ms=until_ms, on_progress=report
        )


def print_rerating(rerating: "Rerating") -> None:
    """Print the difference for each user who would have paid another amount, and why not all."""
    from llmproxy.rerating import DAYS

    total = rerating.total
    if not total.requests and not rerating.left_out:
        output.say(f"No request of the last {DAYS} days cost anything.")
        return
    changed = rerating.by_difference()
    requests = output.counted(total.requests, "request")
    output.say(f"By these prices, {requests} of the last {DAYS} days would have cost:")
    if changed:
        output.print_table(
            (
                Column("USER"),
                Column("REQUESTS", "number", is_optional=True),
                Column("COST", "money"),
                Column("WOULD BE", "money"),
                Column("DIFFERENCE", "money"),
            ),
            [_row(name, user) for name, user in changed[:USERS_SHOWN_MAX]],
            total=_row("all", total),
        )
    else:
        output.say("the same for every user.")
    _say_rest(rerating, len(changed))


def _row(name: str, one: "Sum") -> tuple[str, str, str, str, str]:
    from llmproxy.money import format_usd

    difference = one.difference_nanousd
    return (
        name,
        f"{one.requests:,}",
        format_usd(one.old_nanousd),
        format_usd(one.new_nanousd),
        ("+" if difference > 0 else "") + format_usd(difference),
    )


def _say_rest(rerating: "Rerating", changed: int) -> None:
    from llmproxy.money import format_usd

    if changed > USERS_SHOWN_MAX:
        more = output.counted(changed - USERS_SHOWN_MAX, "user")
        output.say(f"And {more} with smaller differences; --json shows all.")
    same = len(rerating.users) - changed
    if changed and same:
        output.say(f"The same for {output.counted(same, 'further user')}.")
    for why, left_out in rerating.left_out.items():
        requests = output.counted(left_out.requests, "request")
        cost = format_usd(left_out.old_nanousd)
        output.say(f"Not among them: {requests} of {cost} USD in all: {why.value}.")


def rerating_json(rerating: "Rerating | None") -> dict[str, object] | None:
    """Return the difference as `--json` shows it: all users, money as decimal strings of USD."""
    from llmproxy.money import format_usd
    from llmproxy.rerating import DAYS

    if rerating is None:
        return None
    return {
        "days": DAYS,
        **_sum_json(rerating.total),
        "users": [
            {"user": name, **_sum_json(user)} for name, user in sorted(rerating.users.items())
        ],
        "not_rated": [
            {
                "reason": why.name.lower(),
                "requests": left_out.requests,
                "cost_usd": format_usd(left_out.old_nanousd),
            }
            for why, left_out in rerating.left_out.items()
        ],
    }


def _sum_json(one: "Sum") -> dict[str, object]:
    from llmproxy.money import format_usd

    return {
        "requests": one.requests,
        "old_usd": format_usd(one.old_nanousd),
        "new_usd": format_usd(one.new_nanousd),
        "difference_usd": format_usd(one.difference_nanousd),
    }
