"""Commands `provider-keys …`: the operator's own keys at the providers.

A secret comes from a hidden prompt, from stdin or from a file, never from an argument, which
other users of the machine could read.
"""

import sys
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmproxy.cli import opening, output
from llmproxy.cli.completion import provider_names
from llmproxy.cli.options import LIMIT_DEFAULT, Json, Limit, Yes, examples, noun
from llmproxy.cli.provider_views import key_json, print_keys
from llmproxy.plain_text import clean

if TYPE_CHECKING:
    from llmproxy.storage.database import Tx

app = noun(
    "Keep the keys that providers gave you.",
    "llmproxy provider-keys add openai",
    "llmproxy provider-keys list",
)
ProviderName = Annotated[
    str,
    typer.Argument(metavar="PROVIDER", help="The provider's name.", autocompletion=provider_names),
]
KeyName = Annotated[str, typer.Argument(metavar="NAME", help="The key's name.")]

SECRET_FILE_BYTES_MAX = 4096


@app.command(
    epilog=examples(
        "llmproxy provider-keys add openai",
        "llmproxy provider-keys add openai --name team --key-file openai.key",
        "pass show openai | llmproxy provider-keys add openai",
    )
)
def add(
    provider: ProviderName,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="How to call it; else key-1, key-2, …")
    ] = None,
    key_file: Annotated[
        str | None, typer.Option(metavar="PATH", help="Read the key from a file; - is stdin.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Store a provider's key, sealed. It is asked for hidden, or read from stdin or a file."""
    from llmproxy import key_pool
    from llmproxy.config import find_paths
    from llmproxy.sealing import sealing_key_or_new

    paths = find_paths()
    with opening.database() as database:
        with database.read() as tx:
            _require_known(tx, provider)
        secret = _read_secret(f"Key of {provider}", key_file)
        with database.write() as tx:
            master_key = sealing_key_or_new(tx, paths)
            key = key_pool.add_provider_key(
                tx,
                provider,
                secret,
                name=name,
                vault=master_key.vault(),
                actor=opening.actor(),
                now_ms=opening.now_ms(),
            )
    if as_json:
        output.print_json(key_json(key, {}))
        return
    output.print_line(f"Provider key {key.name!r} of {provider} stored: {key.masked}")
    if master_key.path is None:
        what = f"the master key from {master_key.origin}: keep a copy of it"
    else:
        what = f"{master_key.origin}: back that file up"
    output.say(f"It is sealed under {what}, apart from the database.")


def _require_known(tx: "Tx", provider: str) -> None:
    from llmproxy import key_pool
    from llmproxy.errors import NotFoundError
    from llmproxy.presets import PRESETS

    known = sorted({*PRESETS, *(found.name for found in key_pool.list_providers(tx))})
    if provider not in known:
        msg = (
            f"There is no provider {provider!r:.80}. Known: {', '.join(known)}. "
            "Another: llmproxy providers add"
        )
        raise NotFoundError(msg)


def _read_secret(what: str, key_file: str | None) -> str:
    if key_file is not None and key_file != "-":
        try:
            with Path(key_file).open(encoding="ascii") as file:
                return file.read(SECRET_FILE_BYTES_MAX).strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not ASCII text"
            msg = f"{key_file} cannot be read: {why}."
            raise typer.BadParameter(msg) from error
    if key_file is None and sys.stdin.isatty():
        return getpass(f"{what} (not shown): ").strip()
    return sys.stdin.read(SECRET_FILE_BYTES_MAX).strip()


@app.command(
    "list", epilog=examples("llmproxy provider-keys list", "llmproxy provider-keys list openai")
)
def list_keys(
    provider: Annotated[
        str | None, typer.Argument(metavar="PROVIDER", help="Only this provider's.")
    ] = None,
    limit: Limit = LIMIT_DEFAULT,
    as_json: Json = False,
) -> None:
    """List provider keys with their state and why."""
    from llmproxy import key_pool
    from llmproxy.provider_events import last_statuses

    with opening.reading() as tx:
        if provider is not None:
            _require_known(tx, provider)
        keys = list(output.only(key_pool.list_provider_keys(tx, provider), limit))
        statuses = last_statuses(tx)
    if as_json:
        output.print_json([key_json(key, statuses) for key in keys])
        return
    if not keys:
        whose = provider or "openai"
        output.say(f"No provider keys yet. Add one: llmproxy provider-keys add {whose}")
        return
    print_keys(keys, statuses, with_provider=True)


@app.command(epilog=examples("llmproxy provider-keys disable openai key-1 --reason 'rotating'"))
def disable(
    provider: ProviderName,
    name: KeyName,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Why.")] = None,
    as_json: Json = False,
) -> None:
    """Use a provider key no more until enabled. Running answers finish."""
    _set_state(provider, name, "disabled", reason, as_json=as_json)


@app.command(epilog=examples("llmproxy provider-keys enable openai key-1"))
def enable(provider: ProviderName, name: KeyName, as_json: Json = False) -> None:
    """Use a provider key again. It was disabled, dead or out of quota."""
    _set_state(provider, name, "active", None, as_json=as_json)


def _set_state(provider: str, name: str, state: str, reason: str | None, *, as_json: bool) -> None:
    from llmproxy import key_pool

    with opening.writing() as tx:
        key = key_pool.find_provider_key(tx, provider, name)
        key_pool.set_key_state(
            tx,
            key.id,
            state,
            reason=reason and clean(reason),
            actor=opening.actor(),
            now_ms=opening.now_ms(),
        )
        key = key_pool.find_provider_key(tx, provider, name)
    if as_json:
        output.print_json(key_json(key, {}))
        return
    output.print_line(f"Provider key {name!r} of {provider} is {state}.")


@app.command(epilog=examples("llmproxy provider-keys remove openai key-1 --yes"))
def remove(provider: ProviderName, name: KeyName, yes: Yes = False, as_json: Json = False) -> None:
    """Forget a provider key and its sealed secret."""
    from llmproxy import key_pool

    with opening.database() as database:
        with database.read() as tx:
            key = key_pool.find_provider_key(tx, provider, name)
        output.confirm(
            f"Forget provider key {name!r} of {provider} ({key.masked})? It cannot be undone.",
            yes=yes,
        )
        with database.write() as tx:
            key_pool.remove_provider_key(
                tx, provider, name, actor=opening.actor(), now_ms=opening.now_ms()
            )
    if as_json:
        output.print_json({"provider": provider, "name": name, "state": "removed"})
        return
    output.print_line(f"Provider key {name!r} of {provider} is removed.")


@app.command(
    epilog=examples(
        "llmproxy provider-keys rekey",
        "llmproxy provider-keys rekey --new-key-file new.key --yes",
    )
)
def rekey(
    new_key_file: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="Take the new master key (64 hex digits) from a file; - is stdin."
        ),
    ] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Seal all provider keys under a new master key.

    It takes the old one's place, and a running server goes on. A master key that
    the environment or the service manager hands over is given with
    --new-key-file, and handed over afterwards.
    """
    from llmproxy.config import find_paths
    from llmproxy.sealing import seal_anew

    given = None if new_key_file is None else _read_secret("New master key", new_key_file)
    output.confirm(
        "Seal all provider keys under a new master key? In backups that were made before they "
        "stay sealed under the old one, which is replaced.",
        yes=yes,
    )
    with opening.database(must_exist=True) as database:
        done = seal_anew(database, find_paths(), given)
    if as_json:
        where = None if done.path is None else str(done.path)
        output.print_json({"sealed": done.keys, "master_key": where, "from": done.origin})
        return
    keys = output.counted(done.keys, "provider key")
    output.print_line(f"Sealed under a new master key: {keys}.")
    if done.path is not None:
        output.say(f"It is in {done.path}: back that file up, and make a new backup.")
        return
    output.say(
        f"Now put the new master key where the old one comes from ({done.origin}), and restart "
        "the server. Until then it goes on with the keys that it has opened."
    )
