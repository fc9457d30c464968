"""Commands `clients …`: the settings with which clients use this server."""

import sys
from getpass import getpass
from typing import TYPE_CHECKING, Annotated

import typer

from llmproxy.cli import output
from llmproxy.cli.completion import client_names
from llmproxy.cli.options import LIMIT_DEFAULT, Json, Limit, examples, noun
from llmproxy.cli.output import Column

if TYPE_CHECKING:
    from llmproxy.client_settings import Client, Setting

app = noun(
    "Print the settings of clients, ready to paste.",
    "llmproxy clients list",
    "llmproxy clients show codex",
)
KEY_CHARS_MAX = 200
FROM_STDIN = "-"
Name = Annotated[
    str,
    typer.Argument(metavar="NAME", help="Such as openai-python.", autocompletion=client_names),
]


@app.command("list", epilog=examples("llmproxy clients list", "llmproxy clients list --json"))
def list_clients(limit: Limit = LIMIT_DEFAULT, as_json: Json = False) -> None:
    """List the clients whose settings are known."""
    from llmproxy.client_settings import clients

    found = output.only(clients(), limit)
    if as_json:
        output.print_json(
            [{"name": each.name, "title": each.title, "place": each.place} for each in found]
        )
        return
    output.print_table(
        (Column("NAME"), Column("CLIENT"), Column("WHERE IT GOES", "dim", is_optional=True)),
        ((each.name, each.title, each.place or _kind(each)) for each in found),
    )


@app.command(
    epilog=examples(
        "llmproxy clients show openai-python",
        "llmproxy clients show claude-code --base-url https://llm.example.org",
        "llmproxy keys create ann --name laptop --quiet | llmproxy clients show shell --key -",
    )
)
def show(
    name: Name,
    base_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The server's address, if it is not the one here."),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="What to write where the API key belongs; - reads it from stdin.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the setting of a client for this server, ready to paste.

    The address is that of the server that runs, or of where one would be: public_url,
    else host and port. Without --key, code takes the API key from the variable
    APP_API_KEY, and files have llmp_… in its place. The setting goes to stdout, what
    else is to be known to stderr.
    """
    from llmproxy.client_settings import KEY, check_address, find_client, setting_of

    client = find_client(name)
    address = check_address(base_url) if base_url is not None else _address()
    given = None if key is None else _checked_key(key)
    setting = setting_of(client, address, given or KEY, writes_key=given is not None)
    if as_json:
        output.print_json({**setting._asdict(), "base_url": address})
        return
    for note in _notes(setting, address, is_given=base_url is not None):
        output.say(note)
    for line in setting.text.splitlines():
        output.print_line(line)


def _kind(client: "Client") -> str:
    return {"sh": "a shell", "python": "a Python program", "js": "a module (.mjs)"}[client.language]


def _address() -> str:
    """Return where clients reach the server that runs, or where they would one."""
    from llmproxy.config import find_paths, load_config
    from llmproxy.dashboard.address import proxy_url, told_proxy
    from llmproxy.storage.database import DatabaseFiles

    settings = load_config().settings
    lock = DatabaseFiles(find_paths().database).serving_lock
    running = told_proxy(lock.holder()) if lock.is_held() else None
    return running or proxy_url(settings)


def _checked_key(text: str) -> str:
    """Return what is to stand in place of the API key.

    Raises:
        typer.BadParameter: it could end the quotes around it, or is an API key that others of
            this machine could read among the arguments.
    """
    from llmproxy.vault import is_well_formed

    given = _read_key() if text == FROM_STDIN else text
    if text != FROM_STDIN and is_well_formed(given):
        msg = (
            "An API key among the arguments can be read by others and stays in the shell's "
            "history. Pipe it in: … | llmproxy clients show NAME --key -"
        )
        raise typer.BadParameter(msg)
    is_plain = given and len(given) <= KEY_CHARS_MAX and not set(given) & set("\"'`\\()")
    if not is_plain or not given.isprintable() or " " in given:
        msg = "--key takes an API key or a word in its place, without quotes, blanks or brackets."
        raise typer.BadParameter(msg)
    return given


def _read_key() -> str:
    """Return the API key that is piped in, or typed where it is not shown."""
    if sys.stdin.isatty():
        return getpass("API key (not shown): ").strip()
    return sys.stdin.readline(KEY_CHARS_MAX + 2).strip()


def _notes(setting: "Setting", address: str, *, is_given: bool) -> list[str]:
    """Return what a person has to know beside the text."""
    from urllib.parse import urlsplit

    from llmproxy.client_settings import KEY, KEY_VARIABLE
    from llmproxy.presets import is_loopback

    notes = [f"{setting.title}, for {setting.place}:" if setting.place else f"{setting.title}:"]
    if KEY in setting.text:
        notes.append(f"Write your API key where it has {KEY}")
    elif KEY_VARIABLE in setting.text:
        notes.append(f"It takes your API key from the variable {KEY_VARIABLE}.")
    if not is_given and is_loopback(urlsplit(address).hostname or ""):
        notes.append(
            f"{address} is there for this machine alone; another address: --base-url, or the "
            "setting public_url."
        )
    return [*notes, *setting.notes]
