"""Commands `users …`: the people who may spend."""

from typing import TYPE_CHECKING, Annotated

import typer

from llmproxy.cli import limits, opening, output
from llmproxy.cli.completion import user_names
from llmproxy.cli.options import LIMIT_DEFAULT, Json, Limit, Quiet, examples, noun, rows_to_fetch
from llmproxy.cli.output import Column

if TYPE_CHECKING:
    from llmproxy.accounts import User
    from llmproxy.user_changes import UserChanges

app = noun(
    "Make, show and change users.",
    "llmproxy users create ann --credit 5 --key laptop",
    "llmproxy users list",
)
Name = Annotated[
    str, typer.Argument(metavar="NAME", help="The user's name.", autocompletion=user_names)
]
NewName = Annotated[str, typer.Argument(metavar="NAME", help="The user's name.")]


def user_json(user: "User") -> dict[str, object]:
    """Return a user as `--json` shows it; money as exact decimal strings of USD."""
    from llmproxy.clock import rfc3339
    from llmproxy.money import format_multiplier, format_usd

    return {
        "name": user.name,
        "balance_usd": format_usd(user.balance_nanousd),
        "held_usd": format_usd(user.held_nanousd),
        "available_usd": format_usd(user.available_nanousd),
        "rate_multiplier": format_multiplier(user.rate_multiplier_micro),
        "disabled": user.disabled_at_ms is not None,
        "admin": user.is_admin,
        "limits": user.limits.as_json() if user.limits else {},
        "created_at": rfc3339(user.created_at_ms),
    }


@app.command(
    epilog=examples(
        "llmproxy users create ann --credit 5 --key laptop",
        "KEY=$(llmproxy users create ben --rate-multiplier 1.2 --key ci --quiet)",
    )
)
def create(
    name: NewName,
    rate_multiplier: Annotated[
        str, typer.Option(metavar="FACTOR", help="What this user's costs are multiplied by.")
    ] = "1",
    credit: Annotated[
        str | None, typer.Option(metavar="USD", help="Credit to begin with, such as 5 or 2.50.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="NAME", help="Make an API key of this name as well.")
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Make a user, with credit and an API key if wanted.

    All of it is made, or nothing. The API key is printed on stdout; it is shown this
    once and cannot be shown again.
    """
    from llmproxy.money import format_multiplier, format_usd, parse_multiplier, parse_usd
    from llmproxy.user_changes import NewUser, make_user

    multiplier = parse_multiplier(rate_multiplier)
    wanted = NewUser(name, multiplier, None if credit is None else parse_usd(credit), key)
    with opening.writing() as tx:
        user, api_key = make_user(tx, wanted, actor=opening.actor(), now_ms=opening.now_ms())
    if as_json:
        output.print_json({**user_json(user), "api_key": api_key})
        return
    if not quiet:
        factor = format_multiplier(user.rate_multiplier_micro)
        balance = format_usd(user.balance_nanousd)
        output.say(f"User {name} made: balance {balance} USD, costs × {factor}.")
        if api_key is None:
            output.say(f"Next, an API key: llmproxy keys create {name} --name laptop")
        else:
            output.say(f"API key {key!r}, shown only this once:")
    if api_key is not None:
        output.print_line(api_key)


@app.command("list", epilog=examples("llmproxy users list", "llmproxy users list --json"))
def list_users(limit: Limit = LIMIT_DEFAULT, as_json: Json = False) -> None:
    """List users with their balances."""
    from llmproxy import accounts
    from llmproxy.money import format_multiplier, format_usd

    with opening.reading() as tx:
        users = output.only(accounts.list_users(tx, limit=rows_to_fetch(limit)), limit)
    if as_json:
        output.print_json([user_json(user) for user in users])
        return
    if not users:
        output.say("No users yet. Create one: llmproxy users create NAME")
        return
    output.print_table(
        (
            Column("USER", may_wrap=True),
            Column("BALANCE", "money"),
            Column("HELD", "money"),
            Column("AVAILABLE", "money"),
            Column("MULTIPLIER", "number"),
            Column("STATE", "state"),
            Column("CREATED (UTC)", "dim", is_optional=True),
        ),
        (
            (
                user.name,
                format_usd(user.balance_nanousd),
                format_usd(user.held_nanousd),
                format_usd(user.available_nanousd),
                format_multiplier(user.rate_multiplier_micro),
                "disabled" if user.disabled_at_ms else "active",
                output.short_time(user.created_at_ms),
            )
            for user in users
        ),
    )


@app.command(epilog=examples("llmproxy users show ann"))
def show(name: Name, as_json: Json = False) -> None:
    """Show one user."""
    from llmproxy import accounts

    with opening.reading() as tx:
        user = accounts.find_user(tx, name)
        keys = accounts.list_api_keys(tx, user, limit=-1, live_at_ms=opening.now_ms())
    if as_json:
        output.print_json(user_json(user))
        return
    _print_user(user, list(dict.fromkeys(key.name for key in keys)))


def _print_user(user: "User", live_keys: list[str]) -> None:
    from llmproxy.money import format_multiplier, format_usd

    output.print_fields(
        (
            ("user", user.name),
            ("balance", f"{format_usd(user.balance_nanousd)} USD"),
            ("held", f"{format_usd(user.held_nanousd)} USD for running requests"),
            ("available", f"{format_usd(user.available_nanousd)} USD"),
            ("multiplier", format_multiplier(user.rate_multiplier_micro)),
            ("state", "disabled" if user.disabled_at_ms else "active"),
            *([("operator", "yes, on the dashboard")] if user.is_admin else []),
            ("API keys", ", ".join(live_keys) or "none"),
            ("created", output.short_time(user.created_at_ms) + " UTC"),
            *limits.limit_fields(user.limits, None),
        )
    )


@app.command(
    "set",
    epilog=examples(
        "llmproxy users set ann --rate-multiplier 1.2",
        "llmproxy users set ann --rpm 120 --tpm none --concurrent 8",
        "llmproxy users set ann --admin",
        "llmproxy users set ann --no-password",
    ),
)
def set_user(
    context: typer.Context,
    name: Name,
    rate_multiplier: Annotated[
        str | None,
        typer.Option(metavar="FACTOR", help="What this user's costs are multiplied by."),
    ] = None,
    rpm: limits.Rpm = None,
    tpm: limits.Tpm = None,
    concurrent: limits.Concurrent = None,
    admin: Annotated[
        bool | None,
        typer.Option("--admin/--no-admin", help="May operate the proxy on the dashboard, or not."),
    ] = None,
    no_password: Annotated[
        bool, typer.Option("--no-password", help="Forget their password: links alone sign in.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Change a user's rate multiplier, limits or role.

    They count for requests from now on. The limits hold for all API keys of the user together;
    `none` lifts one. Whoever loses their password, or whose role
    changes, is signed out of the dashboard.
    """
    from llmproxy.money import parse_multiplier
    from llmproxy.user_changes import UserChanges

    # The context has all options of limits, and one place knows how each is called.
    changes = limits.parse_limits(context.params)
    if rate_multiplier is None and admin is None and not changes and not no_password:
        msg = "Say what to set, such as --rate-multiplier, --rpm, --admin or --no-password."
        raise typer.BadParameter(msg)
    multiplier = None if rate_multiplier is None else parse_multiplier(rate_multiplier)
    wanted = UserChanges(
        rate_multiplier_micro=multiplier,
        is_admin=admin,
        forgets_password=no_password,
        limits=changes,
    )
    _change(name, wanted, as_json=as_json)


@app.command(epilog=examples("llmproxy users disable ann"))
def disable(name: Name, as_json: Json = False) -> None:
    """Refuse a user's requests from now on, and sign them out. Users are never deleted.

    Running answers finish and are charged. The credit stays; pay it back with
    `llmproxy credits adjust`.
    """
    from llmproxy.user_changes import UserChanges

    _change(name, UserChanges(is_disabled=True), as_json=as_json)


@app.command(epilog=examples("llmproxy users enable ann"))
def enable(name: Name, as_json: Json = False) -> None:
    """Let a disabled user make requests again."""
    from llmproxy.user_changes import UserChanges

    _change(name, UserChanges(is_disabled=False), as_json=as_json)


def _change(name: str, changes: "UserChanges", *, as_json: bool) -> None:
    from llmproxy.money import format_multiplier
    from llmproxy.user_changes import change_user

    with opening.writing() as tx:
        user = change_user(tx, name, changes, now_ms=opening.now_ms())
    if as_json:
        output.print_json(user_json(user))
        return
    state = "disabled" if user.disabled_at_ms else "active"
    factor = format_multiplier(user.rate_multiplier_micro)
    role = ", an operator" if user.is_admin else ""
    output.print_line(f"User {user.name} is {state}{role}, costs × {factor}.")
    if changes.limits:
        output.print_fields(limits.limit_fields(user.limits, None))


@app.command(
    "login-link",
    epilog=examples("llmproxy users login-link ann", "llmproxy users login-link ann --json"),
)
def login_link(name: Name, as_json: Json = False) -> None:
    """Print a link that signs a user in to the dashboard. It works once, within 15 minutes.

    It leads to the server that runs, or to where one would be: public_url, else host and port.
    Send it to nobody else. A link of theirs that was not used yet ends.
    """
    from llmproxy import accounts, sessions
    from llmproxy.clock import rfc3339
    from llmproxy.config import find_paths, load_config
    from llmproxy.dashboard.address import dashboard_url, told_where
    from llmproxy.errors import RefusedError
    from llmproxy.storage.database import DatabaseFiles

    settings = load_config().settings
    if not settings.dashboard:
        msg = "The dashboard is switched off (the setting `dashboard`)."
        raise RefusedError(msg)
    now_ms = opening.now_ms()
    with opening.writing() as tx:
        secret = sessions.create_link(tx, accounts.find_user(tx, name), now_ms=now_ms)
    lock = DatabaseFiles(find_paths().database).serving_lock
    running = told_where(lock.holder()) if lock.is_held() else None
    url = f"{running or dashboard_url(settings)}/sign-in/{secret}"
    if as_json:
        ends_at = rfc3339(now_ms + sessions.LINK_LIFE_MS)
        output.print_json({"user": name, "url": url, "expires_at": ends_at})
        return
    output.say(f"Signs {name} in, once, within 15 minutes:")
    output.print_line(url)


@app.command("sign-out", epilog=examples("llmproxy users sign-out ann"))
def sign_out(name: Name, as_json: Json = False) -> None:
    """End all dashboard sessions of a user, and their sign-in link."""
    from llmproxy import accounts, sessions

    with opening.writing() as tx:
        ended = sessions.end_all_sessions(tx, accounts.find_user(tx, name))
    if as_json:
        output.print_json({"user": name, "sessions_ended": ended})
        return
    output.print_line(f"User {name} is signed out: {ended} sessions ended.")
