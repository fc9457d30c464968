"""Commands `catalog check` and `catalog update`: a catalog file, looked at and put in force."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from llmproxy.cli import opening, output
from llmproxy.cli.catalog_rerating import print_rerating, rerate_last_days, rerating_json
from llmproxy.cli.options import Json, Yes, examples
from llmproxy.cli.output import Column

if TYPE_CHECKING:
    from llmproxy.catalog import Catalog
    from llmproxy.catalog_changes import ModelChange
    from llmproxy.catalog_warnings import CatalogWarning
    from llmproxy.rerating import Rerating

CHECK_EXAMPLES = examples("llmproxy catalog check", "llmproxy catalog check my_catalog.json")
UPDATE_EXAMPLES = examples(
    "llmproxy catalog update --from model_catalog.json --dry-run",
    "llmproxy catalog update --from https://example.com/model_catalog.json",
)
FILE_BYTES_MAX = 16 * 1024 * 1024
TIMEOUT_S = 30.0


def check(
    file: Annotated[
        str | None, typer.Argument(metavar="FILE", help="A catalog; else the one in force.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a catalog file. Names every mistake, and exits with 1 if there is one.

    Says too which prices end soon or have ended, and, of the one in force, which names it and
    entries of your own both have.
    """
    from llmproxy.catalog_parser import packaged_path, parse_document, read_catalog_file
    from llmproxy.catalog_warnings import date_warnings, name_warnings

    path = Path(file) if file else opening.catalog_path() or packaged_path()
    document = parse_document(read_catalog_file(path))
    problems = document.problems + ([] if file else opening.broken_overrides())
    warnings: list[CatalogWarning] = []
    if not problems:
        catalog = document.catalog() if file else opening.catalog()
        warnings = [*name_warnings(catalog), *date_warnings(catalog, opening.today())]
    if as_json:
        output.print_json(
            {
                "file": str(path),
                "ok": not problems,
                "updated": document.updated or None,
                "models": len(document.models),
                "problems": problems,
                "warnings": _warnings_json(warnings),
            }
        )
    else:
        for problem in problems:
            output.print_line(problem)
        if problems:
            output.say(f"{path}: {output.counted(len(problems), 'problem')}.")
        else:
            counted = output.counted(len(document.models), "model")
            output.print_line(f"{path} is right: {counted}, of {document.updated}.")
            _say_warnings(warnings)
    if problems:
        raise typer.Exit(1)


def update(
    source: Annotated[
        str, typer.Option("--from", metavar="FILE|URL", help="A newer catalog; a URL is https.")
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the differences, change nothing.")
    ] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Put a newer catalog file in force, after showing what it changes.

    Shows too what the last seven days' requests would have cost by it, user by
    user; their charges stay as they are. It is copied beside config.toml and used
    from then on instead of the built-in one, by a running server too. Entries of
    your own stay. Prices that change more than 20 times need --yes.
    """
    from llmproxy.catalog_changes import compare
    from llmproxy.catalog_parser import load_catalog, parse_catalog
    from llmproxy.catalog_warnings import name_warnings
    from llmproxy.config import find_catalog, load_config

    config = load_config()
    if config.settings.catalog_file and not dry_run:
        _refuse_named(config.settings.catalog_file, config.origins["catalog_file"])
    data = _read(source)
    new = parse_catalog(data, source)
    old = load_catalog(find_catalog(config))
    changes = compare(old, new)
    in_force = opening.with_own_entries(new)
    warnings = name_warnings(in_force)
    if not as_json:
        _print_changes(old, new, changes)
        _print_own(in_force, new, changes)
        _say_warnings(warnings)
    is_newer = bool(changes) or old.updated != new.updated
    rerating = rerate_last_days(in_force) if changes else None
    if rerating and not as_json:
        print_rerating(rerating)
    if is_newer and not dry_run:
        _ask(changes, yes=yes)
        # Together with the audit log's note of it, or not at all.
        with (
            opening.database() as database,
            _replaced(config.paths.catalog, data),
            database.write(changes_files=True),
        ):
            pass
    if as_json:
        output.print_json(
            {
                **_as_json(old, new, changes, rerating, is_applied=is_newer and not dry_run),
                "warnings": _warnings_json(warnings),
            }
        )
    elif is_newer and not dry_run:
        output.print_line(f"{config.paths.catalog} is in force now.")
    else:
        output.say("Nothing was changed." if is_newer else "It is in force already.")


def _refuse_named(file: str, origin: str) -> None:
    from llmproxy.errors import RefusedError

    msg = (
        f"The setting catalog_file (from {origin}) puts {file} in force, whatever is updated here. "
        "Replace that file yourself, or remove the setting."
    )
    raise RefusedError(msg)


def _read(source: str) -> bytes:
    """Return the bytes of a file or of what a URL leads to."""
    from llmproxy.catalog_parser import read_catalog_file
    from llmproxy.errors import CatalogError

    if "://" in source:
        return _download(source)
    data = read_catalog_file(Path(source))
    if len(data) > FILE_BYTES_MAX:
        msg = f"{source} is longer than {FILE_BYTES_MAX:,} bytes: it is no catalog."
        raise CatalogError(msg)
    return data


def _download(url: str) -> bytes:
    from llmproxy.errors import CatalogError
    from llmproxy.fetch import FetchError, fetch
    from llmproxy.presets import is_loopback

    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    is_local = parts.scheme == "http" and is_loopback(parts.hostname or "")
    if not parts.hostname or (parts.scheme != "https" and not is_local):
        msg = f"{url!r:.200} is not taken: prices come over https, or over http from this machine."
        raise typer.BadParameter(msg)
    try:
        headers = {"accept": "application/json", "accept-encoding": "identity"}
        got = fetch(url, headers, timeout_s=TIMEOUT_S, bytes_max=FILE_BYTES_MAX)
    except FetchError as error:
        msg = f"{url} could not be read: {error}."
        raise CatalogError(msg) from error
    if got.location and 300 <= got.status < 400:
        msg = f"{url} is at {got.location:.300} now. If you trust that address, give it to --from."
        raise CatalogError(msg)
    if got.status != 200:
        msg = f"{url} could not be read: it answers with status {got.status}."
        raise CatalogError(msg)
    return got.body


def _print_changes(old: "Catalog", new: "Catalog", changes: "list[ModelChange]") -> None:
    older = ", which is OLDER" if new.updated < old.updated else ""
    models = f"{len(old.models()):,} and {len(new.models()):,} models"
    output.say(f"From the catalog of {old.updated} to that of {new.updated}{older}: {models}.")
    if not changes:
        output.say("No price and no limit differs.")
        return
    output.print_table(
        (
            Column("MODEL", may_wrap=True),
            Column("WHAT", may_wrap=True),
            Column("OLD", "money", may_wrap=True),
            Column("NEW", "money", may_wrap=True),
            Column("CHANGE", "number"),
        ),
        [
            (
                f"{change.provider}/{change.model}" if not number else "",
                field.name if change.kind == "changed" else f"{change.kind}: {field.name}",
                field.old or "–",
                field.new or "–",
                (field.percent or "") + (" !" if field.is_jump else ""),
            )
            for change in changes
            for number, field in enumerate(change.fields)
        ],
    )
    kinds = [change.kind for change in changes]
    counts = (f"{kinds.count(kind)} {kind}" for kind in ("new", "gone", "changed"))
    output.say(f"Models: {', '.join(counts)}.")


def _print_own(in_force: "Catalog", new: "Catalog", changes: "list[ModelChange]") -> None:
    changed = {(change.provider, change.model) for change in changes}
    kept = []
    for model in in_force.models():
        found = new.find(model.provider, model.id) or model
        names = {(model.provider, model.id), (model.provider, found.id)}
        if in_force.is_own(model) and names & changed:
            kept.append(f"{model.provider}/{model.id}")
    if kept:
        output.say(f"Entries of your own stay in force: {', '.join(kept)}.")


def _say_warnings(warnings: "list[CatalogWarning]") -> None:
    for warning in warnings:
        output.say(f"{warning.message}. {warning.advice}")


def _warnings_json(warnings: "list[CatalogWarning]") -> list[dict[str, str]]:
    return [{"name": one.name, "message": one.message, "advice": one.advice} for one in warnings]


def _as_json(
    old: "Catalog",
    new: "Catalog",
    changes: "list[ModelChange]",
    rerating: "Rerating | None",
    *,
    is_applied: bool,
) -> dict[str, object]:
    return {
        "applied": is_applied,
        "old_updated": old.updated,
        "new_updated": new.updated,
        "changes": [
            {
                "provider": change.provider,
                "id": change.model,
                "change": change.kind,
                "fields": [field._asdict() for field in change.fields],
            }
            for change in changes
        ],
        "last_days": rerating_json(rerating),
    }


def _ask(changes: "list[ModelChange]", *, yes: bool) -> None:
    """Return only when the changes are wanted.

    Raises:
        RefusedError: a price jumps, and `--yes` was not given.
    """
    from llmproxy.catalog_changes import JUMP_MAX
    from llmproxy.errors import RefusedError

    jumps = [(change, field) for change in changes for field in change.jumps]
    if jumps and not yes:
        change, field = jumps[0]
        count = output.counted(len(jumps), "price")
        msg = (
            f"{count} would change more than {JUMP_MAX} times, such as {field.name} of "
            f"{change.provider}/{change.model} from {field.old or 'none'} to "
            f"{field.new or 'none'}. If that is meant, add --yes."
        )
        raise RefusedError(msg)
    what = output.counted(len(changes), "model")
    output.confirm(f"Change prices or limits of {what}?", yes=yes or not changes)


@contextmanager
def _replaced(path: Path, data: bytes) -> Iterator[None]:
    """Replace the operator's catalog file; an error in the block puts the old one back."""
    before = path.read_bytes() if path.exists() else None
    _write(path, data)
    try:
        yield
    except BaseException:
        if before is None:
            path.unlink()
        else:
            _write(path, before)
        raise


def _write(path: Path, data: bytes) -> None:
    """Replace the operator's catalog file: a reader sees the old one or the new one, whole."""
    import os
    from tempfile import NamedTemporaryFile

    from llmproxy.errors import CatalogError

    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as file:
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        msg = f"{path} cannot be written: {error.strerror}. Nothing was changed."
        raise CatalogError(msg) from error
