"""Commands `serve` and `demo`: what runs until it is stopped."""

from typing import Annotated

import typer

from llmproxy.cli.options import Json, examples

SERVE_EXAMPLES = examples(
    "llmproxy serve",
    "llmproxy serve --host 0.0.0.0 --port 8080",
    "llmproxy serve --strict --no-dashboard",
)
DEMO_EXAMPLES = examples("llmproxy demo", "llmproxy demo --keep")


def serve(
    host: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Address to listen on.")
    ] = None,
    port: Annotated[int | None, typer.Option(metavar="PORT", help="Port to listen on.")] = None,
    log_level: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="debug, info, warning or error.")
    ] = None,
    strict: Annotated[
        bool | None,
        typer.Option(
            "--strict/--no-strict",
            help="Hold what no honest answer can cost more than; refuse what has no such bound.",
        ),
    ] = None,
    dashboard: Annotated[
        bool | None,
        typer.Option("--dashboard/--no-dashboard", help="Serve the dashboard, or not."),
    ] = None,
) -> None:
    """Run the proxy. Until SIGTERM or Ctrl-C; running answers are finished and settled first."""
    from llmproxy.config import load_config
    from llmproxy.server.run import serve as run

    flags = {
        "host": host,
        "port": port,
        "log_level": log_level,
        "strict": strict,
        "dashboard": dashboard,
    }
    raise typer.Exit(run(load_config(flags)))


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the demo running, to be tried by hand.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show it all in a few seconds. With a local provider, a user, requests, receipts."""
    from llmproxy.demo.run import run_demo

    raise typer.Exit(run_demo(keep=keep, as_json=as_json))
