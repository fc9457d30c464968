"""Owns the options that many commands share, and how examples stand in the help."""

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand, TyperOption
from typing_extensions import override

from llmproxy.cli import opening
from llmproxy.cli.completion import dialect_names, model_ids, provider_names, user_names
from llmproxy.cli.times import TIME_HELP

Function = TypeVar("Function", bound=Callable[..., Any])

LIMIT_DEFAULT = 50

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Limit = Annotated[
    int, typer.Option("--limit", metavar="N", min=0, help="Most rows to show; 0 shows all.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the new API key, if any.")]


UserName = Annotated[
    str, typer.Argument(metavar="USER", help="The user's name.", autocompletion=user_names)
]
OfUser = Annotated[
    str | None,
    typer.Option("--user", metavar="NAME", help="Only this user's.", autocompletion=user_names),
]
OfKey = Annotated[
    str | None, typer.Option("--key", metavar="NAME", help="Only with API keys of this name.")
]
OfProvider = Annotated[
    str | None,
    typer.Option(
        "--provider", metavar="NAME", help="Only to this provider.", autocompletion=provider_names
    ),
]
OfModel = Annotated[
    str | None,
    typer.Option("--model", metavar="ID", help="Only for this model.", autocompletion=model_ids),
]
Since = Annotated[str | None, typer.Option(metavar="TIME", help=f"Not before: {TIME_HELP}")]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Before; written like --since.")]

_DIALECT = "DIALECT"
Dialect = typer.Option(metavar=_DIALECT, help="What it speaks.", autocompletion=dialect_names)
"""Of a server. Its help goes on with the names of all."""


class _Command(TyperCommand):
    """A command, of which the audit log can tell how it was called."""

    @override
    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write its help, with the dialects that there are: only now are they worth loading."""
        for option in self.params:
            if option.metavar == _DIALECT and isinstance(option, TyperOption):
                option.help = f"What it speaks: {', '.join(dialect_names(''))}."
        super().format_help(ctx, formatter)

    @override
    def invoke(self, ctx: Any) -> Any:
        """Run it."""
        with opening.called_as(ctx):
            return super().invoke(ctx)


class App(typer.Typer):
    """A group of commands."""

    @override
    def command(self, name: str | None = None, **options: Any) -> Callable[[Function], Function]:
        """Add a command, as Typer does."""
        return super().command(name, cls=_Command, **options)


def noun(text: str, *commands: str) -> App:
    """Return an empty command group with its one line of help, and commands to copy."""
    return App(help=text, epilog=examples(*commands), no_args_is_help=True, rich_markup_mode=None)


def examples(*commands: str) -> str:
    """Return the epilog of a command's help: commands to copy, as they are written here."""
    title = "Example:" if len(commands) == 1 else "Examples:"
    return "\b\n" + "\n".join((title, *(f"  {command}" for command in commands)))


def rows_to_fetch(limit: int) -> int:
    """Return the LIMIT of a query that shows `limit` rows: one more tells that there are more."""
    return limit + 1 if limit else -1
