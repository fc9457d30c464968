"""Commands `credits …`: money in, and corrections."""

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from llmproxy.cli import opening, output
from llmproxy.cli.options import LIMIT_DEFAULT, Json, Limit, UserName, examples, noun, rows_to_fetch
from llmproxy.cli.output import Column

if TYPE_CHECKING:
    from llmproxy.crediting import Credited

app = noun(
    "Add credit, list it, correct it.",
    "llmproxy credits add ann 5.00",
    "llmproxy credits list ann",
)


@app.command(
    epilog=examples(
        "llmproxy credits add ann 5.00",
        "llmproxy credits add ann 20 --reason 'invoice 17' --idempotency-key invoice-17",
    )
)
def add(
    user: UserName,
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="USD, such as 5 or 2.50.")],
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Kept with it.")] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Credit with the same key is added only once."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Add credit to a user. Shows the new balance."""
    from llmproxy import crediting

    change = partial(crediting.credit, reason=reason, idempotency_key=idempotency_key)
    _change_balance(user, amount, change, as_json=as_json)


@app.command(
    epilog=examples("llmproxy credits adjust ann --by -5.00 --reason 'paid out'"),
)
def adjust(
    user: UserName,
    by: Annotated[str, typer.Option(metavar="USD", help="What to add; below zero takes away.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; it stays in the history.")],
    as_json: Json = False,
) -> None:
    """Correct a balance up or down. Never below what running requests hold."""
    from llmproxy import crediting

    _change_balance(user, by, partial(crediting.adjust, reason=reason), as_json=as_json)


def _change_balance(user: str, amount: str, change: "partial[Credited]", *, as_json: bool) -> None:
    """Let a function of the ledger move an amount in a transaction, and show what came of it."""
    from llmproxy import accounts
    from llmproxy.money import parse_usd

    # An amount that cannot be read is refused before a database is opened, or made.
    amount_nanousd = parse_usd(amount)
    with opening.writing() as tx:
        wallet_id = accounts.find_user(tx, user).wallet_id
        credited = change(
            tx, wallet_id, amount_nanousd, actor=opening.actor(), now_ms=opening.now_ms()
        )
    _print_credited(user, credited, as_json=as_json)


def _print_credited(user: str, credited: "Credited", *, as_json: bool) -> None:
    from llmproxy.money import format_usd

    amount = format_usd(credited.amount_nanousd)
    balance = format_usd(credited.balance_nanousd)
    if as_json:
        output.print_json(
            {
                "user": user,
                "id": credited.transfer_id,
                "amount_usd": amount,
                "balance_usd": balance,
                "is_repeat": credited.is_repeat,
            }
        )
        return
    done = "was credited before; nothing added" if credited.is_repeat else "USD"
    output.print_line(f"{user}: {amount} {done}, balance {balance} USD.")


@app.command(
    "list", epilog=examples("llmproxy credits list ann", "llmproxy credits list ann --json")
)
def list_credits(user: UserName, limit: Limit = LIMIT_DEFAULT, as_json: Json = False) -> None:
    """List a user's credits and adjustments, by whom and why. Newest first.

    Charges are not among them: llmproxy usage requests
    """
    from llmproxy import accounts, reports
    from llmproxy.clock import rfc3339
    from llmproxy.money import format_usd

    with opening.reading() as tx:
        wallet_id = accounts.find_user(tx, user).wallet_id
        entries = reports.list_credits(tx, wallet_id, limit=rows_to_fetch(limit))
    entries = list(output.only(entries, limit))
    if as_json:
        output.print_json(
            [
                {
                    "id": entry.id,
                    "created_at": rfc3339(entry.created_at_ms),
                    "user": user,
                    "kind": entry.kind,
                    "amount_usd": format_usd(entry.amount_nanousd),
                    "reason": entry.reason,
                    "by": entry.actor,
                    "idempotency_key": entry.idempotency_key,
                }
                for entry in entries
            ]
        )
        return
    if not entries:
        output.say(f"No credits yet. Add some: llmproxy credits add {user} 5.00")
        return
    output.print_table(
        (
            Column("TIME (UTC)", "dim"),
            Column("KIND"),
            Column("USD", "money"),
            Column("REASON", may_wrap=True),
            Column("BY", "dim", is_optional=True),
        ),
        (
            (
                output.short_time(entry.created_at_ms),
                entry.kind,
                format_usd(entry.amount_nanousd),
                entry.reason or "",
                entry.actor,
            )
            for entry in entries
        ),
    )
