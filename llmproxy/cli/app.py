"""Owns the root of the command line, and the one place where errors become words and exit codes.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 refused, 5 database, 130 interrupted.
"""

import sqlite3
import sys
from contextlib import suppress
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from llmproxy import __version__
from llmproxy.cli import (
    audit,
    catalog,
    clients,
    config,
    db,
    doctor,
    explain,
    keys,
    ledger,
    pool,
    provider_keys,
    providers,
    serve,
    usage,
    users,
)
from llmproxy.cli import credits as credit_commands
from llmproxy.cli.options import App
from llmproxy.cli.output import say
from llmproxy.errors import LlmproxyError

EXIT_DATABASE = 5
EXIT_INTERRUPTED = 130


class _Root(TyperGroup):
    """The root group: whatever a command raises for a person ends here, without a traceback."""

    def invoke(self, ctx: Any) -> Any:  # type: ignore[explicit-override]  # noqa: ANN401
        """Run the chosen command and turn our errors into a message and an exit code."""
        try:
            return super().invoke(ctx)
        except LlmproxyError as error:
            say(f"Error: {error}")
            raise typer.Exit(error.exit_code) from error
        except sqlite3.Error as error:
            say(f"Error: the database failed: {error}. Look at it with: llmproxy doctor")
            raise typer.Exit(EXIT_DATABASE) from error


app = App(
    name="llmproxy",
    cls=_Root,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=(
        "\b\nBegin here:\n"
        "  llmproxy demo                                   see it work, without any key\n"
        "  llmproxy provider-keys add openai               store a provider's key\n"
        "  llmproxy users create ann --credit 5 --key laptop\n"
        "  llmproxy serve"
    ),
)


def _print_version(*, wanted: bool) -> None:
    if wanted:
        print(f"llmproxy {__version__}")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version and exit.",
            is_eager=True,
            callback=lambda wanted: _print_version(wanted=wanted),
        ),
    ] = False,
) -> None:
    """A metered proxy in front of paid LLM APIs: prepaid credit, exact costs, one file."""


app.command(epilog=serve.SERVE_EXAMPLES)(serve.serve)
app.command(epilog=serve.DEMO_EXAMPLES)(serve.demo)
app.add_typer(users.app, name="users")
app.add_typer(credit_commands.app, name="credits")
app.add_typer(keys.app, name="keys")
app.add_typer(providers.app, name="providers")
app.add_typer(provider_keys.app, name="provider-keys")
app.add_typer(catalog.app, name="catalog")
app.add_typer(clients.app, name="clients")
app.add_typer(usage.app, name="usage")
app.command(epilog=explain.EXAMPLES)(explain.explain)
app.add_typer(ledger.app, name="ledger")
app.add_typer(pool.app, name="pool")
app.add_typer(audit.app, name="audit")
app.command(epilog=doctor.EXAMPLES)(doctor.doctor)
app.add_typer(config.app, name="config")
app.add_typer(db.app, name="db")


def main() -> None:
    """Run the command line: the entry point of the installed program."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):
            # Names may hold letters that the terminal's encoding lacks: no reason to fail.
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        app(prog_name="llmproxy")
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
