"""Commands `keys …`: the API keys that users send."""

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from llmproxy.cli import limits, opening, output
from llmproxy.cli.completion import user_names
from llmproxy.cli.options import (
    LIMIT_DEFAULT,
    Json,
    Limit,
    Quiet,
    UserName,
    examples,
    noun,
    rows_to_fetch,
)
from llmproxy.cli.output import Column
from llmproxy.cli.times import END_HELP, parse_end, parse_span

if TYPE_CHECKING:
    from llmproxy.accounts import ApiKey

app = noun(
    "Make, list, limit, replace and revoke users' API keys.",
    "llmproxy keys create ann --name laptop",
    "llmproxy keys set ann laptop --rpm 60 --daily-budget 5",
    "llmproxy keys list ann --live",
)
KeyName = Annotated[str, typer.Argument(metavar="NAME", help="The key's name.")]
Expires = Annotated[str | None, typer.Option("--expires", metavar="TIME", help=END_HELP)]


@app.command(
    epilog=examples(
        "llmproxy keys create ann --name laptop",
        "llmproxy keys create ann --name course --expires 2026-12-31 --daily-budget 2",
        "KEY=$(llmproxy keys create ann --name ci --quiet)",
    )
)
def create(
    context: typer.Context,
    user: UserName,
    name: Annotated[str, typer.Option(metavar="NAME", help="What the key is for.")] = "default",
    expires: Expires = None,
    rpm: limits.Rpm = None,
    tpm: limits.Tpm = None,
    concurrent: limits.Concurrent = None,
    daily_budget: limits.DailyBudget = None,
    monthly_budget: limits.MonthlyBudget = None,
    spend_per_hour: limits.SpendPerHour = None,
    models: limits.Models = None,
    providers: limits.Providers = None,
    networks: limits.Networks = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Make an API key. It is printed on stdout, this once: it cannot be shown again.

    Limits may be set with it, as by `keys set`.
    """
    from llmproxy import accounts, limit_store
    from llmproxy.clock import rfc3339

    # The context has all options of limits, and one place knows how each is called.
    changes = limits.parse_limits(context.params)
    now_ms = opening.now_ms()
    expires_at_ms = parse_end(expires, now_ms) if expires else None
    with opening.writing() as tx:
        owner = accounts.find_user(tx, user)
        api_key = accounts.create_api_key(
            tx, owner, name, now_ms=now_ms, expires_at_ms=expires_at_ms
        )
        if changes:
            made = accounts.find_live_keys(tx, owner, name, now_ms=now_ms)[-1]
            limit_store.set_key_limits(tx, [made.id], changes)
    if as_json:
        expires_at = rfc3339(expires_at_ms)
        output.print_json(
            {"user": user, "name": name, "api_key": api_key, "expires_at": expires_at}
        )
        return
    if not quiet:
        until = f", good until {output.short_time(expires_at_ms)} UTC" if expires_at_ms else ""
        output.say(f"API key {name!r} of {user}{until}, shown only this once:")
    output.print_line(api_key)


@app.command(
    epilog=examples(
        "llmproxy keys rotate ann laptop",
        "llmproxy keys rotate ann laptop --overlap 24h",
        "KEY=$(llmproxy keys rotate ann ci --overlap 1h --quiet)",
    )
)
def rotate(
    user: UserName,
    name: KeyName,
    overlap: Annotated[
        str | None,
        typer.Option(metavar="SPAN", help="How long the old key works on: 90m, 24h or 7d."),
    ] = None,
    expires: Expires = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Replace an API key by a new one. It has the same name and is printed this once.

    The old key ends at once, or after the overlap; both have the same name meanwhile, and
    `keys revoke` ends both. The new key ends when the old one would have, unless --expires
    says otherwise.
    """
    from llmproxy import accounts
    from llmproxy.clock import rfc3339

    now_ms = opening.now_ms()
    overlap_ms = parse_span(overlap) if overlap else 0
    expires_at_ms = parse_end(expires, now_ms) if expires else None
    with opening.writing() as tx:
        owner = accounts.find_user(tx, user)
        replaced = accounts.find_live_keys(tx, owner, name, now_ms=now_ms)[-1]
        api_key = accounts.rotate_api_key(
            tx, owner, name, now_ms=now_ms, overlap_ms=overlap_ms, expires_at_ms=expires_at_ms
        )
        old = accounts.find_api_key(tx, owner, replaced.id) or replaced
        new = accounts.find_live_keys(tx, owner, name, now_ms=now_ms)[-1]
    if as_json:
        output.print_json(
            {
                "user": user,
                "name": name,
                "api_key": api_key,
                "expires_at": rfc3339(new.expires_at_ms),
                "old": key_json(old, now_ms),
            }
        )
        return
    if not quiet:
        when = f"at {output.short_time(old.ends_at_ms)} UTC" if overlap_ms else "now"
        output.say(f"The old API key {name!r} of {user} ({old.masked}) ends {when}.")
        output.say("The new one, shown only this once:")
    output.print_line(api_key)


def key_json(key: "ApiKey", now_ms: int) -> dict[str, object]:
    """Return an API key as `--json` shows it."""
    from llmproxy.clock import rfc3339

    return {
        "user": key.user,
        "name": key.name,
        "masked": key.masked,
        "state": key.state(now_ms),
        "created_at": rfc3339(key.created_at_ms),
        "expires_at": rfc3339(key.expires_at_ms),
        "revoked_at": rfc3339(key.revoked_at_ms),
        "limits": key.limits.as_json() if key.limits else {},
        "suspended_reason": key.limits.suspended_reason if key.limits else None,
    }


@app.command(
    "list",
    epilog=examples(
        "llmproxy keys list", "llmproxy keys list ann --live", "llmproxy keys list ann --json"
    ),
)
def list_keys(
    user: Annotated[
        str | None,
        typer.Argument(metavar="USER", help="Only this user's.", autocompletion=user_names),
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="Only those that work now.")] = False,
    limit: Limit = LIMIT_DEFAULT,
    as_json: Json = False,
) -> None:
    """List API keys, ended ones too. The keys themselves are not stored.

    A replaced key works until it ends: see `keys rotate`. `keys show` has the limits of one, and
    why it is suspended.
    """
    from llmproxy import accounts

    now_ms = opening.now_ms()
    with opening.reading() as tx:
        owner = accounts.find_user(tx, user) if user else None
        keys = accounts.list_api_keys(
            tx, owner, limit=rows_to_fetch(limit), live_at_ms=now_ms if live else None
        )
    keys = list(output.only(keys, limit))
    if as_json:
        output.print_json([key_json(key, now_ms) for key in keys])
        return
    if not keys:
        kind = "live API keys" if live else "API keys yet"
        output.say(f"No {kind}. Create one: llmproxy keys create {user or 'USER'} --name laptop")
        return
    output.print_table(
        (
            Column("USER", may_wrap=True),
            Column("NAME", may_wrap=True),
            Column("KEY", "dim"),
            Column("STATE", "state"),
            Column("ENDS (UTC)"),
            Column("CREATED (UTC)", "dim", is_optional=True),
        ),
        (
            (
                key.user,
                key.name,
                key.masked,
                key.state(now_ms),
                output.short_time(key.ends_at_ms) or "–",
                output.short_time(key.created_at_ms),
            )
            for key in keys
        ),
    )


@app.command(epilog=examples("llmproxy keys show ann laptop"))
def show(user: UserName, name: KeyName, as_json: Json = False) -> None:
    """Show an API key, its limits, and what is used of them.

    What is used is what the database knows: a running server counts tokens and requests itself.
    Of the speed of spending, answers that took longer than total_timeout_s are left out.
    """
    from llmproxy import accounts, reports

    now_ms = opening.now_ms()
    with opening.reading() as tx:
        owner = accounts.find_user(tx, user)
        key = accounts.find_live_keys(tx, owner, name, now_ms=now_ms)[-1]
        used = None
        if key.limits is not None:
            used = reports.find_limits_use(
                tx, owner.id, key.limits, now_ms=now_ms, answer_s_max=opening.answer_s_max()
            )
    if as_json:
        output.print_json({**key_json(key, now_ms), "limits_used": used.as_json() if used else {}})
        return
    fields = [
        ("user", key.user),
        ("name", key.name),
        ("key", key.masked),
        ("state", key.state(now_ms)),
    ]
    if key.limits is not None and key.limits.is_suspended:
        fields += [
            ("since", output.short_time(key.limits.suspended_at_ms) + " UTC"),
            ("reason", key.limits.suspended_reason or ""),
            ("resume it", f"llmproxy keys resume {shlex.join((user, name))}"),
        ]
    ends_at = output.short_time(key.ends_at_ms)
    fields += [
        ("created", output.short_time(key.created_at_ms) + " UTC"),
        ("ends", f"{ends_at} UTC" if ends_at else "never"),
    ]
    output.print_fields([*fields, *limits.limit_fields(key.limits, used)])


@app.command(
    "set",
    epilog=examples(
        "llmproxy keys set ann laptop --rpm 60 --tpm 100000 --concurrent 4",
        "llmproxy keys set ann laptop --daily-budget 5 --monthly-budget none",
        "llmproxy keys set ann ci --models 'gpt-4o-mini,claude-*' --networks 10.0.0.0/8",
    ),
)
def set_key(
    context: typer.Context,
    user: UserName,
    name: KeyName,
    rpm: limits.Rpm = None,
    tpm: limits.Tpm = None,
    concurrent: limits.Concurrent = None,
    daily_budget: limits.DailyBudget = None,
    monthly_budget: limits.MonthlyBudget = None,
    spend_per_hour: limits.SpendPerHour = None,
    models: limits.Models = None,
    providers: limits.Providers = None,
    networks: limits.Networks = None,
    as_json: Json = False,
) -> None:
    """Set limits of an API key. They count for requests from now on; `none` lifts one.

    A key that this one replaces and that still works shares the limits, and what is used of them.
    """
    from llmproxy import accounts, limit_store

    # The context has all options of limits, and one place knows how each is called.
    changes = limits.parse_limits(context.params)
    if not changes:
        msg = "Say what to set, such as --rpm 60; see llmproxy keys set --help."
        raise typer.BadParameter(msg)
    now_ms = opening.now_ms()
    with opening.writing() as tx:
        owner = accounts.find_user(tx, user)
        keys = accounts.find_live_keys(tx, owner, name, now_ms=now_ms)
        limit_store.set_key_limits(tx, [key.id for key in keys], changes)
        key = accounts.find_live_keys(tx, owner, name, now_ms=now_ms)[-1]
    if as_json:
        output.print_json(key_json(key, now_ms))
        return
    output.print_fields(
        [("user", key.user), ("name", key.name), *limits.limit_fields(key.limits, None)]
    )


@app.command(epilog=examples("llmproxy keys resume ann laptop"))
def resume(user: UserName, name: KeyName, as_json: Json = False) -> None:
    """Let a suspended API key work again. What it spent before does not suspend it anew."""
    from llmproxy import accounts
    from llmproxy.user_changes import resume_api_key

    with opening.writing() as tx:
        owner = accounts.find_user(tx, user)
        was_suspended = resume_api_key(tx, owner, name, now_ms=opening.now_ms())
    if as_json:
        output.print_json(
            {"user": user, "name": name, "was_suspended": was_suspended, "state": "live"}
        )
        return
    how = "works again" if was_suspended else "was not suspended"
    output.print_line(f"API key {name!r} of {user} {how}.")


@app.command(epilog=examples("llmproxy keys revoke ann laptop"))
def revoke(user: UserName, name: KeyName, as_json: Json = False) -> None:
    """End an API key at once. Running answers finish.

    A key of that name that was replaced and still works ends too.
    """
    from llmproxy import accounts

    with opening.writing() as tx:
        owner = accounts.find_user(tx, user)
        ended = accounts.revoke_api_key(tx, owner, name, now_ms=opening.now_ms())
    if as_json:
        output.print_json({"user": user, "name": name, "state": "revoked", "keys": ended})
        return
    too = ", and the old one that it had replaced" if ended > 1 else ""
    output.print_line(f"API key {name!r} of {user} is revoked{too}.")
