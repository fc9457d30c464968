"""Commands `config …`: the settings in force."""

from pathlib import Path

from llmproxy.cli import output
from llmproxy.cli.options import Json, examples, noun
from llmproxy.cli.output import Column

app = noun("Look at the settings.")


@app.callback()
def group() -> None:
    """Look at the settings."""


@app.command(epilog=examples("llmproxy config show", "LLMPROXY_PORT=9000 llmproxy config show"))
def show(as_json: Json = False) -> None:
    """Show every setting and where it came from. And where the files are."""
    from llmproxy.catalog_parser import packaged_path
    from llmproxy.config import SETTINGS, find_catalog, load_config

    config = load_config()
    paths = {
        "database": str(config.paths.database),
        "config_file": str(config.paths.config_file),
        "master_key": str(config.paths.master_key),
        "catalog": str(find_catalog(config) or packaged_path()),
    }
    rows = [
        (
            setting.name,
            getattr(config.settings, setting.name),
            config.origins[setting.name],
            setting,
        )
        for setting in SETTINGS
    ]
    if as_json:
        output.print_json(
            {
                "paths": paths,
                "settings": {
                    name: {"value": value, "from": origin} for name, value, origin, _ in rows
                },
            }
        )
        return
    output.print_fields(
        (name.replace("_", " "), path + ("" if Path(path).exists() else "  (not there yet)"))
        for name, path in paths.items()
    )
    output.print_line("")
    output.print_table(
        (
            Column("SETTING"),
            Column("VALUE"),
            Column("FROM", "dim"),
            Column("MEANING", "dim", may_wrap=True),
        ),
        (
            (name, str(value).lower() if isinstance(value, bool) else str(value), origin, each.help)
            for name, value, origin, each in rows
        ),
    )
