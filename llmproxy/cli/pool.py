"""Commands `pool …`: the credit of users, against what you hold at providers."""

from typing import TYPE_CHECKING, Annotated

import typer

from llmproxy.cli import opening, output
from llmproxy.cli.completion import provider_names
from llmproxy.cli.options import Json, examples, noun
from llmproxy.cli.output import Column

if TYPE_CHECKING:
    from llmproxy.pool import Fund, Pool

app = noun(
    "Compare users' credit with what you hold at providers.",
    "llmproxy pool set openai 100",
    "llmproxy pool show",
)


@app.command(epilog=examples("llmproxy pool show", "llmproxy pool show --json"))
def show(as_json: Json = False) -> None:
    """Show what was sold as credit, and what you hold at providers. An estimate.

    Of what you said to hold at a provider, the cost of its answers since then is taken off: at
    your users' prices, for what the provider will bill is not known here.
    """
    from llmproxy.pool import find_pool, warning

    with opening.reading() as tx:
        pool = find_pool(tx)
    if as_json:
        output.print_json(pool.as_json())
        return
    _print_pool(pool)
    if not pool.funds:
        output.say("Say what you hold at a provider: llmproxy pool set openai 100")
    if said := warning(pool):
        output.say(f"Warning: {said}.")


@app.command("set", epilog=examples("llmproxy pool set openai 100", "llmproxy pool set groq 0"))
def set_funds(
    provider: Annotated[
        str,
        typer.Argument(
            metavar="PROVIDER", help="The provider's name.", autocompletion=provider_names
        ),
    ],
    amount: Annotated[str, typer.Argument(metavar="USD", help="What you hold there now.")],
    as_json: Json = False,
) -> None:
    """Say what you hold at a provider now. As its billing page shows it.

    What its answers cost from now on is taken off. Say it again whenever you pay in.
    """
    from llmproxy import pool
    from llmproxy.money import format_usd, parse_usd

    amount_nanousd = parse_usd(amount)
    with opening.writing() as tx:
        pool.tell_funds(
            tx, provider, amount_nanousd, actor=opening.actor(), now_ms=opening.now_ms()
        )
        found = pool.find_pool(tx)
    fund = next(each for each in found.funds if each.provider == provider)
    if as_json:
        output.print_json(fund.as_json())
        return
    output.print_line(f"You hold {format_usd(amount_nanousd)} USD at {provider}.")
    if said := pool.warning(found):
        output.say(f"Warning: {said}.")


def _print_pool(pool: "Pool") -> None:
    from llmproxy.money import format_usd

    output.print_fields(
        (
            ("users' credit", f"{format_usd(pool.sold_nanousd)} USD"),
            ("of it held", f"{format_usd(pool.held_nanousd)} USD for running requests"),
            *(
                [("at providers", f"{format_usd(pool.left_nanousd)} USD, estimated")]
                if pool.funds
                else []
            ),
        )
    )
    if not pool.funds:
        return
    output.print_line("")
    output.print_table(
        (
            Column("PROVIDER", may_wrap=True),
            Column("HELD", "money"),
            Column("ON (UTC)", "dim"),
            Column("SPENT SINCE", "money"),
            Column("LEFT", "money"),
            Column("BY", "dim", is_optional=True),
        ),
        [*map(_row, pool.funds), *((name, "not said", "", "", "", "") for name in pool.untold)],
        total=("all", "", "", "", format_usd(pool.left_nanousd), ""),
    )


def _row(fund: "Fund") -> tuple[str, ...]:
    from llmproxy.money import format_usd

    return (
        fund.provider,
        format_usd(fund.amount_nanousd),
        output.short_time(fund.told_at_ms),
        format_usd(fund.spent_nanousd),
        format_usd(fund.left_nanousd),
        fund.actor,
    )
