"""Commands `providers …`: where requests are sent, and whether they are let through."""

from typing import TYPE_CHECKING, Annotated

import typer

from llmproxy.cli import opening, output, provider_check, provider_views
from llmproxy.cli.completion import provider_names
from llmproxy.cli.options import Dialect, Json, Yes, examples, noun
from llmproxy.cli.output import Column
from llmproxy.plain_text import clean
from llmproxy.provider_states import count_by_state, state_of

if TYPE_CHECKING:
    from llmproxy.key_pool import Provider, ProviderKey
    from llmproxy.provider_events import Statuses
    from llmproxy.storage.database import AdminDatabase

app = noun(
    "Show, add, point, check, pause and resume providers.",
    "llmproxy providers list",
    "llmproxy providers pause openai --reason 'invoice unpaid'",
)
Name = Annotated[
    str,
    typer.Argument(metavar="NAME", help="The provider's name.", autocompletion=provider_names),
]
AllowHttp = Annotated[
    bool, typer.Option("--allow-http", help="Allow plain http to another machine.")
]


def _load() -> "tuple[dict[str, Provider], dict[str, list[ProviderKey]], Statuses]":
    """Return the configured providers and their keys, by name, and by which status each failed."""
    from llmproxy import key_pool
    from llmproxy.provider_events import last_statuses

    with opening.reading() as tx:
        providers = {provider.name: provider for provider in key_pool.list_providers(tx)}
        found = key_pool.keys_by_provider(tx)
        keys = {name: found.get(name, []) for name in providers}
        statuses = last_statuses(tx)
    return providers, keys, statuses


@app.command("list", epilog=examples("llmproxy providers list", "llmproxy providers list --json"))
def list_providers(as_json: Json = False) -> None:
    """List providers with their state and keys. Known ones that only need a key are named too."""
    from llmproxy.presets import PRESETS

    providers, keys, statuses = _load()
    presets = [name for name in PRESETS if name not in providers]
    if as_json:
        output.print_json(
            [
                provider_views.provider_json(
                    name, providers.get(name), keys.get(name, []), statuses
                )
                for name in [*providers, *presets]
            ]
        )
        return
    if providers:
        output.print_table(
            (
                Column("PROVIDER"),
                Column("STATE", "state"),
                Column("KEYS"),
                Column("WHY", may_wrap=True),
                Column("SINCE (UTC)", "dim"),
                Column("BASE URL", "dim", may_wrap=True, is_optional=True),
            ),
            [
                (
                    name,
                    state_of(provider, keys[name]),
                    count_by_state(keys[name]),
                    provider_views.why(provider, keys[name]),
                    output.short_time(provider.paused_at_ms),
                    provider.base_url,
                )
                for name, provider in providers.items()
            ],
        )
    if presets:
        output.say(
            f"{'Also known' if providers else 'No provider is set up yet. Known'}: "
            f"{', '.join(presets)}. Set one up: llmproxy provider-keys add {presets[0]}"
        )


@app.command(
    epilog=examples("llmproxy providers show openai", "llmproxy providers show openai --json")
)
def show(
    name: Name,
    events_shown: Annotated[
        int, typer.Option("--events", metavar="N", min=0, help="How many events, latest first.")
    ] = 10,
    as_json: Json = False,
) -> None:
    """Show one provider, its keys, and what happened to them."""
    from llmproxy.errors import NotFoundError
    from llmproxy.presets import PRESETS
    from llmproxy.provider_events import list_events

    providers, keys, statuses = _load()
    if name not in providers and name not in PRESETS:
        msg = f"There is no provider {name!r:.80}. See: llmproxy providers list"
        raise NotFoundError(msg)
    provider, own_keys = providers.get(name), keys.get(name, [])
    with opening.reading() as tx:
        events = list_events(tx, name, events_shown)
    if as_json:
        shown = provider_views.provider_json(name, provider, own_keys, statuses)
        output.print_json(
            {**shown, "history": [provider_views.event_json(event) for event in events]}
        )
        return
    known = provider or PRESETS[name]
    state = state_of(provider, own_keys)
    fields = [("provider", name), ("state", state)]
    if provider and provider.paused_at_ms:
        status = statuses.get((name, None))
        fields += [
            ("why", provider.paused_reason or ""),
            *([("upstream status", str(status))] if status else []),
            ("since", f"{output.short_time(provider.paused_at_ms)} UTC, by {provider.paused_by}"),
        ]
    if provider and provider.paused_until_ms:
        until = output.short_time(provider.paused_until_ms)
        fields.append(("until", f"{until} UTC; the next request then is a trial"))
    output.print_fields([*fields, ("dialect", known.dialect), ("base URL", known.base_url)])
    if own_keys:
        output.print_line("")
        provider_views.print_keys(own_keys, statuses)
    else:
        output.say(f"No keys yet. Add one: llmproxy provider-keys add {name}")
    if events:
        output.print_line("")
        provider_views.print_events(events)


@app.command(
    epilog=examples(
        "llmproxy providers add ollama --base-url http://127.0.0.1:11434/v1 --dialect openai "
        "--no-key",
        "llmproxy providers add gateway --base-url https://llm.example.com/v1 --dialect openai",
    )
)
def add(
    name: Name,
    base_url: Annotated[str, typer.Option(metavar="URL", help="Where its API begins.")],
    dialect: Annotated[str, Dialect],
    no_key: Annotated[bool, typer.Option("--no-key", help="It needs no key.")] = False,
    no_stream_options: Annotated[
        bool,
        typer.Option("--no-stream-options", help="It refuses the field stream_options."),
    ] = False,
    allow_http: AllowHttp = False,
    as_json: Json = False,
) -> None:
    """Set up a server that speaks OpenAI's, Anthropic's or Gemini's API.

    Such as Ollama, vLLM or a company's gateway. Its models need prices too:
    llmproxy catalog set
    """
    from llmproxy import key_pool, provider_setup
    from llmproxy.dialects.families import FAMILIES
    from llmproxy.presets import Preset, check_base_url
    from llmproxy.provider_events import last_statuses

    _require_dialect(dialect)
    url = check_base_url(base_url, allow_http=allow_http)
    injects_usage = FAMILIES[dialect].has_stream_options and not no_stream_options
    now_ms = opening.now_ms()
    with opening.writing() as tx:
        described = Preset(dialect, url, injects_usage)
        provider = provider_setup.add_provider(tx, name, described, now_ms=now_ms)
        if no_key:
            provider_setup.add_keyless(tx, provider, actor=opening.actor(), now_ms=now_ms)
        keys = key_pool.list_provider_keys(tx, name)
        statuses = last_statuses(tx)
    _warn_of_path(url, dialect)
    if as_json:
        output.print_json(provider_views.provider_json(name, provider, keys, statuses))
        return
    output.print_line(f"{name} is set up at {url}.")
    if not no_key:
        output.say(f"It needs a key: llmproxy provider-keys add {name}")
    output.say(f"And prices: llmproxy catalog set {name} MODEL --in-price 0 --out-price 0")


def _require_dialect(dialect: str) -> None:
    from llmproxy.dialects.families import FAMILIES

    if dialect not in FAMILIES:
        msg = f"--dialect must be {', '.join(FAMILIES)}."
        raise typer.BadParameter(msg)


def _warn_of_path(url: str, dialect: str) -> None:
    """Say what is odd about a base URL, which only the server at its end knows for sure."""
    if dialect == "anthropic" and url.endswith("/v1"):
        output.say(f"Note: /v1 is added to it, so requests go to {url}/v1/messages.")
    elif dialect == "gemini" and url.endswith(("/v1", "/v1beta")):
        output.say(
            f"Note: /v1beta is added to it, so requests go to {url}/v1beta/models. "
            "Of a server that speaks OpenAI's API there, the dialect is openai."
        )
    elif dialect == "openai" and not url.endswith("/v1"):
        output.say(f"Note: most such servers have their API under {url}/v1; see: providers check")


@app.command(
    "set",
    epilog=examples(
        "llmproxy providers set openai --base-url https://gateway.example.com/v1",
        "llmproxy providers set openai --base-url http://127.0.0.1:8080/v1 --yes",
        "llmproxy providers set gateway --no-stream-options",
        "llmproxy providers set gemini --base-url https://gateway.example.com/v1 --dialect openai",
    ),
)
def set_provider(
    name: Name,
    base_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Where its API begins.")
    ] = None,
    dialect: Annotated[str | None, Dialect] = None,
    stream_options: Annotated[
        bool | None,
        typer.Option(
            "--stream-options/--no-stream-options",
            help="It takes, or refuses, the field stream_options.",
        ),
    ] = None,
    allow_http: AllowHttp = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Point a provider at another base URL, or say what it speaks.

    Its requests and its keys go there from now on. The keys are sealed again,
    since each is bound to its base URL.
    """
    from llmproxy import key_pool, provider_setup
    from llmproxy.config import find_paths
    from llmproxy.presets import check_base_url
    from llmproxy.provider_events import last_statuses
    from llmproxy.sealing import sealing_key

    if base_url is None and stream_options is None and dialect is None:
        msg = "Nothing to set: give --base-url, --dialect or --no-stream-options."
        raise typer.BadParameter(msg)
    if dialect is not None:
        _require_dialect(dialect)
    url = None if base_url is None else check_base_url(base_url, allow_http=allow_http)
    with opening.database() as database:
        moves_keys = url is not None and _moves_keys(database, name, url, yes=yes)
        now_ms = opening.now_ms()
        with database.write() as tx:
            master_key = sealing_key(tx, find_paths()) if moves_keys else None
            vault = None if master_key is None else master_key.vault()
            provider = key_pool.ensure_provider(tx, name, now_ms=now_ms)
            if url is not None:
                provider = key_pool.set_base_url(
                    tx, name, url, vault=vault, now_ms=now_ms, actor=opening.actor()
                )
            if dialect is not None:
                provider = provider_setup.set_dialect(tx, provider, dialect)
            if stream_options is not None:
                provider = provider_setup.set_injects_usage(tx, provider, wanted=stream_options)
            keys = key_pool.list_provider_keys(tx, name)
            statuses = last_statuses(tx)
    if url is not None or dialect is not None:
        _warn_of_path(provider.base_url, provider.dialect)
    if as_json:
        output.print_json(provider_views.provider_json(name, provider, keys, statuses))
        return
    usage = "; its streams are asked for usage" if provider.injects_usage else ""
    if dialect is not None:
        output.print_line(f"{name} speaks {dialect} now.")
    output.print_line(f"{name} is at {provider.base_url} now{usage}.")


def _moves_keys(database: "AdminDatabase", name: str, url: str, *, yes: bool) -> bool:
    """Ask whether a provider's keys may go to another URL; say whether it has any."""
    from llmproxy import key_pool

    with database.read() as tx:
        count = sum(not key.is_keyless for key in key_pool.list_provider_keys(tx, name))
    if not count:
        return False
    what = "its key" if count == 1 else f"its {count} keys"
    output.confirm(f"{name} will get {what} and all requests at {url}. Go on?", yes=yes)
    return True


@app.command(epilog=examples("llmproxy providers remove ollama --yes"))
def remove(name: Name, yes: Yes = False, as_json: Json = False) -> None:
    """Forget a provider and its keys.

    Its requests stay in the history, and running ones finish. Prices set for it
    stay too, until llmproxy catalog set --remove. Asks when it has keys or open
    requests.
    """
    from llmproxy import key_pool, provider_setup

    with opening.database() as database:
        with database.read() as tx:
            keys = len(key_pool.list_provider_keys(tx, name))
            requests = provider_setup.count_open_requests(tx, name)
        if keys or requests:
            has = f"{output.counted(keys, 'key')} and {output.counted(requests, 'open request')}"
            output.confirm(f"{name} has {has}. Forget it and its keys?", yes=yes)
        with database.write() as tx:
            provider_setup.remove_provider(tx, name, actor=opening.actor(), now_ms=opening.now_ms())
    if as_json:
        output.print_json({"name": name, "state": "removed"})
        return
    output.print_line(f"Provider {name} is removed.")


@app.command(epilog=examples("llmproxy providers pause openai --reason 'invoice unpaid'"))
def pause(
    name: Name,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Why; users see it in their error message.")
    ],
    as_json: Json = False,
) -> None:
    """Refuse requests to a provider until resumed. They get a 429; running answers finish."""
    from llmproxy import key_pool
    from llmproxy.provider_events import last_statuses

    with opening.writing() as tx:
        provider = key_pool.pause_provider(
            tx, name, reason=clean(reason), actor=opening.actor(), now_ms=opening.now_ms()
        )
        keys = key_pool.list_provider_keys(tx, name)
        statuses = last_statuses(tx)
    if as_json:
        output.print_json(provider_views.provider_json(name, provider, keys, statuses))
        return
    output.print_line(f"{name} is paused: {reason}. Undo it: llmproxy providers resume {name}")


@app.command(epilog=examples("llmproxy providers resume openai"))
def resume(name: Name, as_json: Json = False) -> None:
    """Let requests through to a provider again."""
    from llmproxy import key_pool
    from llmproxy.provider_events import last_statuses

    with opening.writing() as tx:
        provider = key_pool.resume_provider(
            tx, name, actor=opening.actor(), now_ms=opening.now_ms()
        )
        keys = key_pool.list_provider_keys(tx, name)
        statuses = last_statuses(tx)
    if as_json:
        output.print_json(provider_views.provider_json(name, provider, keys, statuses))
        return
    output.print_line(f"{name} is not paused; {state_of(provider, keys)}.")


app.command(epilog=provider_check.EXAMPLES)(provider_check.check)
