"""Commands `config …`: the settings in force."""

from pathlib import Path

from llmproxy.cli import output
from llmproxy.cli.options import Json, examples, noun
from llmproxy.cli.output import Column

app = noun(
    "Look at the settings.",
    "llmproxy config show",
)


@app.callback()
def group() -> None:
    """Look at the settings."""


@app.command(epilog=examples("llmproxy config show", "LLMPROXY_PORT=9000 llmproxy config show"))
def show(as_json: Json = False) -> None:
    """Show every setting and where it came from. And where the files are.

    Of the master key only its origin is shown.
    """
    from llmproxy.catalog_parser import packaged_path
    from llmproxy.config import (
        find_catalog,
        load_config,
        master_key_origin,
        paths_origin,
    )
    from llmproxy.settings import SETTINGS

    config = load_config()
    master_key = master_key_origin(config.paths)
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
                "paths_from": paths_origin(),
                "master_key_from": master_key,
                "settings": {
                    name: {"value": value, "from": origin} for name, value, origin, _ in rows
                },
            }
        )
        return
    there = (
        (name.replace("_", " "), path + ("" if Path(path).exists() else "  (not there yet)"))
        for name, path in paths.items()
    )
    nowhere = "nowhere yet; the first provider-keys add makes it"
    origins = (("paths from", paths_origin()), ("master key from", master_key or nowhere))
    output.print_fields((*there, *origins))
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
