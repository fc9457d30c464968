"""Commands `db backup` and `db restore`: copies of the database, each with the ledger's check."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmproxy.cli import opening, output
from llmproxy.cli.ledger import print_report, verify_with_progress
from llmproxy.cli.options import Json, Yes, examples
from llmproxy.cli.progress import progress

if TYPE_CHECKING:
    from llmproxy.ledger_check import Report

BACKUP_EXAMPLES = examples(
    "llmproxy db backup llmproxy-backup.db",
    "llmproxy db backup /var/backups/llmproxy",
    "llmproxy db backup nightly.db --yes --json",
)
RESTORE_EXAMPLES = examples(
    "llmproxy db restore llmproxy-backup.db", "llmproxy db restore nightly.db --yes"
)


def backup(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The copy; a directory gets a dated one.")
    ],
    verify: Annotated[
        bool, typer.Option(help="Check the whole ledger in the copy (as `ledger verify` does).")
    ] = True,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Copy the database, while the server runs too. And check the copy.

    The copy is of one consistent moment, one file, mode 0600. It is named FILE when its ledger
    is right; a wrong one is kept as FILE.wrong, and the exit code is 1. The master key is not in
    it: keep a copy of that apart.
    """
    from llmproxy.storage.copies import copy_database, name_copy, remove_copy

    target = file / f"llmproxy-{_stamp()}.db" if file.is_dir() else file
    with opening.database(must_exist=True, as_it_is=True) as database:
        if target.exists():
            if target.samefile(database.files.path):
                msg = f"{target} is the database itself. Name another file."
                raise typer.BadParameter(msg, param_hint="FILE")
            output.confirm(f"{target} exists. Replace it?", yes=yes)
        partial = target.with_name(target.name + ".partial")
        remove_copy(partial)
        try:
            with progress("Copying") as report:
                copy_database(database, partial, report)
            found, schema = _check(partial) if verify else (None, None)
            is_right = found is None or found.is_ok
            written = target if is_right else target.with_name(target.name + ".wrong")
            name_copy(partial, written)
        except BaseException:
            remove_copy(partial)
            raise
    _tell_backup(written, found, schema, as_json=as_json)
    if not is_right:
        raise typer.Exit(1)


def _check(copy: Path) -> "tuple[Report | None, int]":
    """Return what `ledger verify` finds in a copy, None in one of an older schema; its schema."""
    from llmproxy.storage.copies import reading_copy, stored_schema
    from llmproxy.storage.database import SCHEMA_VERSION

    with reading_copy(copy) as tx:
        schema = stored_schema(tx)
        return (verify_with_progress(tx) if schema == SCHEMA_VERSION else None), schema


def _tell_backup(
    written: Path, found: "Report | None", schema: int | None, *, as_json: bool
) -> None:
    size = written.stat().st_size
    if as_json:
        output.print_json(
            {
                "path": str(written),
                "bytes": size,
                "verified": None if found is None else found.is_ok,
                "problems_found": 0 if found is None else found.found,
            }
        )
        return
    if found is not None and not found.is_ok:
        print_report(found)
        output.say(
            f"The ledger in the copy is wrong, and so it is in the database. It is {written}."
        )
        return
    if found is not None:
        proof = "its ledger is right"
    elif schema is not None:
        proof = f"not checked: it has the older schema {schema}"
    else:
        proof = "not checked"
    output.print_line(f"{written}: {size:,} bytes, {proof}.")
    output.say("The master key is not in it. Where that is: llmproxy config show")


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A copy made by `db backup`.")],
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Put a copy in the database's place. Not while a server runs.

    The copy is checked first, and brought to this version's schema if it is older. The present
    database is kept beside it under a dated name. What happened since the copy is not in it:
    credit and charges are as they were then, and API keys that were revoked since work again.
    """
    from llmproxy.config import find_paths
    from llmproxy.storage.copies import prepare_restore, put_in_place, remove_copy, write_into
    from llmproxy.storage.database import DatabaseFiles

    files = DatabaseFiles(find_paths().database)
    with opening.serving(files, "restore"):
        with progress("Copying") as report:
            prepared = prepare_restore(files, file, report)
        try:
            found, contents = _look_into(prepared)
            if not found.is_ok:
                print_report(found)
                output.say(f"The ledger in {file} is wrong. Nothing was changed.")
                raise typer.Exit(1)
            output.say(f"{file}: {contents}; its ledger is right.")
            output.confirm(f"Put it in the place of {files.path}?", yes=yes)
            aside = files.path.with_name(f"{files.path.name}.before-{_stamp()}")
            # In the copy: it is in force together with the note of that, or not at all.
            write_into(prepared, opening.note_act)
            had_one = put_in_place(files, prepared, aside)
        finally:
            remove_copy(prepared)
    if as_json:
        kept = str(aside) if had_one else None
        output.print_json({"path": str(files.path), "from": str(file), "kept": kept})
        return
    output.print_line(f"{files.path} is now what {file} was.")
    if had_one:
        output.say(f"The database until now is kept: {aside}")
    output.say("Look at it before you start the server: llmproxy doctor")


def _look_into(copy: Path) -> "tuple[Report, str]":
    """Return what `ledger verify` finds in a copy, and what is in it, in words."""
    from llmproxy import reports
    from llmproxy.storage.copies import reading_copy

    with reading_copy(copy) as tx:
        rows = reports.count_rows(tx)
        last = reports.newest_request_ms(tx)
        when = f", the last on {output.short_time(last)} UTC" if last is not None else ""
        users = output.counted(rows["users"], "user")
        contents = f"{users}, {output.counted(rows['requests'], 'request')}{when}"
        return verify_with_progress(tx), contents


def _stamp() -> str:
    """Return the present as a part of a file's name: `20261125T044615.123Z`."""
    from llmproxy.clock import rfc3339

    return (rfc3339(opening.now_ms()) or "").replace("-", "").replace(":", "")
