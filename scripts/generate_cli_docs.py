"""Write the pages of docs/ that are made of the program itself.

They are cli.md (its help), settings.md (its settings) and clients.md (llmproxy/client_settings).

python scripts/generate_cli_docs.py           write them
python scripts/generate_cli_docs.py --check   say whether they are current (exit 1: they are not)
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command
from typer.testing import CliRunner

from llmproxy import config, settings
from llmproxy.cli.app import app
from llmproxy.client_settings import Client, clients

DOCS = Path(__file__).resolve().parents[1] / "docs"
HELP_COLUMNS = 88

CLI_HEAD = """\
# Command line

<!-- Made by scripts/generate_cli_docs.py from the program's help: do not edit. -->

`llmproxy` works on the database file directly, whether the server runs or not; the server
sees a change with the very next request.

- **Data** goes to stdout, messages go to stderr. Tables are drawn on a terminal only, a pipe gets
  plain aligned text; `NO_COLOR` switches colours off.
- **`--json`** prints one JSON document: an array for lists, an object otherwise. Amounts of money
  are exact decimal strings of USD, times are RFC 3339 in UTC.
- **Lists** show 50 rows unless `--limit` says otherwise; `--limit 0` shows all.
- **Secrets** are never arguments: a provider's key is asked for hidden, or read from stdin or a
  file. A new API key is printed once.
- **What cannot be undone** asks first; `--yes` does not, and is needed where nobody can answer.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | failed, or a check found something |
| 2 | wrong usage: an option, an amount, a setting |
| 3 | not found |
| 4 | refused: exists already, is running already, not enough credit |
| 5 | the database is busy, damaged, or of another version |
| 130 | interrupted |
"""

SETTINGS_HEAD = """\
# Settings

<!-- Made by scripts/generate_cli_docs.py from llmproxy/settings.py: do not edit. -->

Each setting comes from its flag (`llmproxy serve --port 9000`), else from its variable
(`LLMPROXY_PORT=9000`), else from `config.toml` (`port = 9000`), else from its default.
`llmproxy config show` tells the values in force and where each came from.

| setting | variable | default | from … to | meaning |
|---|---|---|---|---|
"""

SETTINGS_TAIL = f"""
## Files

`{config.HOME_VARIABLE}` names a directory for everything: `data/llmproxy.db`, `config/config.toml`
and `config/master.key`. Without it the platform's own directories are used, on Linux
`~/.local/share/llmproxy` and `~/.config/llmproxy`.

## Master key

Provider keys are sealed under the master key. It is looked for, in this order, in
`{config.MASTER_KEY_VARIABLE}` (64 hex digits), in the file that `{config.MASTER_KEY_FILE_VARIABLE}`
names, in the systemd credential `{config.CREDENTIAL_NAME}`, and in `config/master.key`, which the
first `llmproxy provider-keys add` makes. Back it up apart from the database: without it the stored
provider keys cannot be opened. A file must be closed to everybody but its owner (0600 or 0400), who
is the server's user or root; the credential is closed by systemd itself. How to change the master
key: [Running it as a service](operating.md#another-master-key).
"""

CLIENTS_HEAD = """\
# Clients

<!-- Made by scripts/generate_cli_docs.py from llmproxy/client_settings: do not edit. -->

A client needs two things: the address of the proxy, with `/v1/` and the provider's name behind it,
and an API key of the proxy's. Here is where each client wants them. `llmproxy clients show NAME`
prints any of these settings with the address of your server in it; the dashboard shows them with it
too. The key is in the variable `APP_API_KEY`, or stands where it says `llmp_…`.

| client | name | tested |
|---|---|---|
"""
TESTED = {
    "run": "the client itself",
    "replayed": "its requests, replayed",
    "not": "no: see below",
}

CLIENTS_TAIL = """
## Any other

What has a setting for an OpenAI-compatible server (its base URL, API base, endpoint) takes
`http://127.0.0.1:8000/v1/openai`. What speaks to Anthropic takes
`http://127.0.0.1:8000/v1/anthropic`; whether the client adds `/v1/messages` to it or only
`/messages`, both are there. Other providers are at `http://127.0.0.1:8000/v1/{provider}`. Which
paths there are, and where the key may stand, is in [the list of endpoints](endpoints.md).
"""


def main() -> int:
    """Write or check the files; return the exit code."""
    pages = {
        DOCS / "cli.md": cli_page(),
        DOCS / "settings.md": settings_page(),
        DOCS / "clients.md": clients_page(),
    }
    if "--check" not in sys.argv[1:]:
        for path, text in pages.items():
            path.write_text(text, encoding="utf-8")
        return 0
    old = [
        path.name
        for path, text in pages.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    for name in old:
        print(f"docs/{name} is not current. Run: python scripts/generate_cli_docs.py")
    return 1 if old else 0


def cli_page() -> str:
    """Return the page of all commands."""
    sections = (
        f"\n## llmproxy {' '.join(words)}\n\n```text\n{help_text(*words)}\n```\n"
        for words in commands(get_command(app))
    )
    return CLI_HEAD + "".join(sections)


def commands(command: Any, *words: str) -> Iterator[tuple[str, ...]]:  # noqa: ANN401 - Typer's own
    """Every command by its words, in the order of the help."""
    if not hasattr(command, "commands"):
        yield words
        return
    for name, inner in command.commands.items():
        yield from commands(inner, *words, name)


def help_text(*words: str) -> str:
    """Return the help of one command as a terminal of fixed width shows it."""
    done = CliRunner().invoke(
        app, [*words, "--help"], prog_name="llmproxy", terminal_width=HELP_COLUMNS
    )
    if done.exit_code != 0:
        message = f"The help of {' '.join(words)} failed: {done.output}"
        raise RuntimeError(message)
    return "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())


def settings_page() -> str:
    """Return the page of all settings."""
    defaults = settings.Settings()
    rows = []
    for setting in settings.SETTINGS:
        default = getattr(defaults, setting.name)
        bounds = f"{setting.lowest:,} … {setting.highest:,}" if setting.highest else ""
        value = str(default).lower() if isinstance(default, bool) else default
        shown = f"`{value}`" if value != "" else ""
        variable = f"LLMPROXY_{setting.name.upper()}"
        rows.append(f"| `{setting.name}` | `{variable}` | {shown} | {bounds} | {setting.help} |\n")
    return SETTINGS_HEAD + "".join(rows) + SETTINGS_TAIL


def clients_page() -> str:
    """Return the page of all clients."""
    rows = (f"| {each.title} | `{each.name}` | {TESTED[each.tested]} |\n" for each in clients())
    return CLIENTS_HEAD + "".join(rows) + "".join(map(client_section, clients())) + CLIENTS_TAIL


def client_section(client: Client) -> str:
    """Return the section of one client."""
    place = f"In {client.place}:\n\n" if client.place else ""
    notes = "".join(f"- {note}\n" for note in client.notes)
    fence = f"```{client.language}\n{client.text}```\n"
    return f"\n## {client.title}\n\n{place}{fence}" + (f"\n{notes}" if notes else "")


if __name__ == "__main__":
    sys.exit(main())
