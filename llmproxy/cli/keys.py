"""Commands `keys …`: the API keys that users send."""

from typing import Annotated

import typer

from llmproxy.cli import opening, output
from llmproxy.cli.options import LIMIT_DEFAULT, Json, Limit, Quiet, examples, noun, rows_to_fetch
from llmproxy.cli.output import Column

app = noun("Make, list and revoke users' API keys.")
UserName = Annotated[str, typer.Argument(metavar="USER", help="The user's name.")]


@app.command(
    epilog=examples(
        "llmproxy keys create ann --name laptop",
        "KEY=$(llmproxy keys create ann --name ci --quiet)",
    )
)
def create(
    user: UserName,
    name: Annotated[str, typer.Option(metavar="NAME", help="What the key is for.")] = "default",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Make an API key. It is printed on stdout, this once: it cannot be shown again."""
    from llmproxy import accounts

    with opening.writing() as tx:
        owner = accounts.find_user(tx, user)
        api_key = accounts.create_api_key(tx, owner, name, now_ms=opening.now_ms())
    if as_json:
        output.print_json({"user": user, "name": name, "api_key": api_key})
        return
    if not quiet:
        output.say(f"API key {name!r} of {user}, shown only this once:")
    output.print_line(api_key)


@app.command("list", epilog=examples("llmproxy keys list", "llmproxy keys list ann --json"))
def list_keys(
    user: Annotated[str | None, typer.Argument(metavar="USER", help="Only this user's.")] = None,
    limit: Limit = LIMIT_DEFAULT,
    as_json: Json = False,
) -> None:
    """List API keys, revoked ones too. The keys themselves are not stored."""
    from llmproxy import accounts
    from llmproxy.clock import rfc3339

    with opening.reading() as tx:
        owner = accounts.find_user(tx, user) if user else None
        keys = accounts.list_api_keys(tx, owner, limit=rows_to_fetch(limit))
    keys = list(output.only(keys, limit))
    if as_json:
        output.print_json(
            [
                {
                    "user": key.user,
                    "name": key.name,
                    "masked": key.masked,
                    "state": "revoked" if key.revoked_at_ms else "live",
                    "created_at": rfc3339(key.created_at_ms),
                    "revoked_at": rfc3339(key.revoked_at_ms),
                }
                for key in keys
            ]
        )
        return
    if not keys:
        output.say(
            f"No API keys yet. Create one: llmproxy keys create {user or 'USER'} --name laptop"
        )
        return
    output.print_table(
        (
            Column("USER"),
            Column("NAME"),
            Column("KEY", "dim"),
            Column("STATE", "state"),
            Column("CREATED (UTC)", "dim", is_optional=True),
            Column("REVOKED (UTC)", "dim", is_optional=True),
        ),
        (
            (
                key.user,
                key.name,
                key.masked,
                "revoked" if key.revoked_at_ms else "live",
                output.short_time(key.created_at_ms),
                output.short_time(key.revoked_at_ms),
            )
            for key in keys
        ),
    )


@app.command(epilog=examples("llmproxy keys revoke ann laptop"))
def revoke(
    user: UserName,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The key's name.")],
    as_json: Json = False,
) -> None:
    """End an API key at once. Running answers finish."""
    from llmproxy import accounts

    with opening.writing() as tx:
        owner = accounts.find_user(tx, user)
        accounts.revoke_api_key(tx, owner, name, now_ms=opening.now_ms())
    if as_json:
        output.print_json({"user": user, "name": name, "state": "revoked"})
        return
    output.print_line(f"API key {name!r} of {user} is revoked.")
