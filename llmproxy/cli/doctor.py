"""Command `doctor`: is everything in order, and what to do where it is not."""

import shlex
import shutil
import sqlite3
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from llmproxy.cli import opening, output
from llmproxy.cli.checks import Check, print_checks
from llmproxy.cli.doctor_catalog import check_catalog
from llmproxy.cli.doctor_ledger import check_ledger
from llmproxy.cli.doctor_models import check_models
from llmproxy.cli.options import Json, examples
from llmproxy.errors import ConfigError, LlmproxyError, VaultError

if TYPE_CHECKING:
    from pathlib import Path

    from llmproxy.catalog import Catalog
    from llmproxy.config import MasterKey, Paths
    from llmproxy.key_pool import ProviderKey
    from llmproxy.settings import Settings
    from llmproxy.storage.database import AdminDatabase, Tx

EXAMPLES = examples("llmproxy doctor", "llmproxy doctor --online", "llmproxy doctor --json")
FREE_BYTES_MIN = 500 * 10**6
LOOSE_MODE = 0o077


def doctor(
    online: Annotated[
        bool, typer.Option("--online", help="Ask the providers too: do they answer to each key?")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check that everything is in order. Exits with 1 when something fails.

    Looks at the settings, the files and their modes, the database and its server, the master
    key, providers and their keys, open holds, shortfalls, the clock, the catalog, and which
    models were asked for and answered last week.
    """
    checks = [*_check_settings(), *_check_files(), *check_catalog()]
    if online and opening.database_exists():
        checks += _check_online()
    is_ok = all(check.status != "fail" for check in checks)
    if as_json:
        output.print_json({"ok": is_ok, "checks": [check._asdict() for check in checks]})
    else:
        print_checks(checks)
    if not is_ok:
        raise typer.Exit(1)


def _settings() -> "Settings":
    """Return the settings in force, or the defaults when they are wrong (a check of its own)."""
    from llmproxy.config import load_config
    from llmproxy.settings import Settings

    try:
        return load_config().settings
    except ConfigError:
        return Settings()


def _check_settings() -> Iterator[Check]:
    from llmproxy.config import load_config

    try:
        origins = load_config().origins
    except ConfigError as error:
        advice = "The server does not start so; see docs/settings.md"
        yield Check("settings", "fail", str(error), advice)
        return
    changed = sum(origin != "default" for origin in origins.values())
    message = f"{changed} of {len(origins)} set, the others at their defaults"
    yield Check("settings", "ok", f"{message}; see: llmproxy config show")


def _check_files() -> Iterator[Check]:
    """Open the database if there is one, and check what needs it."""
    from llmproxy.config import find_paths
    from llmproxy.storage.database import AdminDatabase

    paths = find_paths()
    yield _check_sqlite(sqlite3.sqlite_version_info[:3])
    if not paths.database.exists():
        advice = "It is made by the first command that needs it: llmproxy users create NAME"
        yield Check("database", "warn", f"there is none yet at {paths.database}", advice)
        return
    try:
        database = AdminDatabase(paths.database)
    except LlmproxyError as error:
        yield Check("database", "fail", str(error), "Do what it says, then run doctor again.")
        return
    try:
        yield from _check_database(database)
        yield _check_modes(paths)
        yield from _check_spill(database.files.spill)
        yield check_room(paths.database, shutil.disk_usage(paths.database.parent).free)
        with database.read() as tx:
            yield _check_master_key(tx, paths)
            yield from _check_providers(tx)
            yield from check_ledger(
                tx,
                now_ms=opening.now_ms(),
                is_served=database.files.serving_lock.is_held(),
                total_timeout_s=_settings().total_timeout_s,
            )
            yield from check_models(tx, now_ms=opening.now_ms(), catalog=_catalog())
    finally:
        database.close()


def _catalog() -> "Catalog | None":
    """Return the catalog in force, None if it cannot be used (a check of its own)."""
    try:
        return opening.catalog()
    except LlmproxyError:
        return None


def _check_online() -> Iterator[Check]:
    from llmproxy.cli.doctor_online import check_online

    try:
        yield from check_online()
    except LlmproxyError as error:
        yield Check("online", "fail", str(error), "Do what it says, then run doctor again.")


def _check_modes(paths: "Paths") -> Check:
    """Everything in the data directory, and the settings, are the operator's alone."""
    files = [*paths.database.parent.iterdir(), paths.config_file.parent, paths.config_file]
    loose = sorted(str(path) for path in files if _mode_of(path) & LOOSE_MODE)
    if loose:
        message = f"{', '.join(loose)}: can be reached by others"
        return Check("files", "warn", message, f"chmod go-rwx {' '.join(map(shlex.quote, loose))}")
    return Check("files", "ok", "only their owner can reach them")


def _mode_of(path: "Path") -> int:
    """Return a file's mode, 0 where there is none, or none that we could get at."""
    try:
        return path.stat().st_mode
    except OSError:
        return 0


def _check_spill(path: "Path") -> Iterator[Check]:
    """Say what waits for the next start of the server; nothing when nothing does."""
    from llmproxy.storage.spill import read_spill

    contents = read_spill(path)
    waiting = len(contents.records) + contents.damaged
    if waiting:
        message = f"{output.counted(waiting, 'record')} in {path} that could not be written"
        yield Check("spill", "warn", message, "Start the server: it writes each of them once.")


def check_room(path: "Path", free_bytes: int) -> Check:
    """Say whether there is room for the database to grow."""
    free = f"{free_bytes // 10**6:,} MB free beside {path.name}"
    if free_bytes < FREE_BYTES_MIN:
        advice = "Make room: without it no request can be held, and so none is sent."
        return Check("disk", "warn", free, advice)
    return Check("disk", "ok", free)


def has_wal_reset_bug(version: tuple[int, ...]) -> bool:
    """Say whether a SQLite may lose commits when a checkpoint meets a foreign writer.

    Fixed in 3.51.3, and in 3.50.7 and 3.44.6 of their series.
    """
    fixed_in_series = {(3, 50): 7, (3, 44): 6}
    fixed = fixed_in_series.get((version[0], version[1]))
    if fixed is not None:
        return version[2] < fixed
    return version < (3, 51, 3)


def _check_sqlite(version: tuple[int, ...]) -> Check:
    text = ".".join(str(part) for part in version)
    if not has_wal_reset_bug(version):
        return Check("sqlite", "ok", f"SQLite {text}")
    message = (
        f"SQLite {text} has the WAL-reset bug (fixed in 3.51.3); llmproxy is safe from it: only "
        "the server checkpoints, and never while a command writes"
    )
    advice = "Let no other program write to the database while the server runs."
    return Check("sqlite", "warn", message, advice)


def _check_database(database: "AdminDatabase") -> Iterator[Check]:
    files = database.files
    with database.read() as tx:
        version = tx.execute("PRAGMA user_version").fetchone()[0]
        journal = tx.execute("PRAGMA journal_mode").fetchone()[0]
    modes = " in a directory ".join(
        f"{path.stat().st_mode & 0o777:04o}" for path in (files.path, files.path.parent)
    )
    yield Check("database", "ok", f"{files.path}, mode {modes}")
    if journal == "wal":
        yield Check("schema", "ok", f"version {version}, write-ahead log")
    else:
        advice = "Is it on a network disk? Move it to a local one."
        yield Check("schema", "fail", f"version {version}, but journal mode {journal}", advice)
    if files.serving_lock.is_held():
        yield Check("server", "ok", f"running: {files.serving_lock.holder()}")
    else:
        yield Check("server", "ok", "not running; start it with: llmproxy serve")


def _check_master_key(tx: "Tx", paths: "Paths") -> Check:
    """Find the master key and open every stored provider key with it."""
    from llmproxy import key_pool
    from llmproxy.config import find_master_key
    from llmproxy.master_key import how_to_restore

    keys = [key for key in key_pool.list_provider_keys(tx) if not key.is_keyless]
    base_urls = {provider.name: provider.base_url for provider in key_pool.list_providers(tx)}
    try:
        found = find_master_key(paths)
        if found is None and keys:
            advice = f"{how_to_restore(paths.master_key)}; or add the keys again."
            return Check(
                "master key", "fail", f"missing, with {len(keys)} provider keys sealed", advice
            )
        if found is None:
            return Check("master key", "ok", "none yet; made with the first provider key")
        vault = found.vault()
        for key in keys:
            vault.open(
                key.sealed,
                row_id=key.id,
                provider=key.provider,
                base_url=base_urls[key.provider],
            )
        left_over = _check_new_key(found, paths)
    except VaultError as error:
        advice = "Restore the master key that sealed it, or remove the key and add it again."
        return Check("master key", "fail", str(error), advice)
    where = f"from {found.origin}" if found.path is None else f"{found.origin}, mode 0600"
    opened = f"opens {output.counted(len(keys), 'provider key')}"
    return left_over or Check("master key", "ok", f"{where}; {opened}")


def _check_new_key(found: "MasterKey", paths: "Paths") -> Check | None:
    """Look for what a change of the master key has left where it was cut short.

    Raises:
        VaultError: it cannot be looked for.
    """
    from llmproxy.master_key import is_there, path_of_new

    new = path_of_new(found.path or paths.master_key)
    if not is_there(new):
        return None
    if found.path is not None:
        message = f"{new}: a change of the master key was cut short; both files are needed"
        return Check("master key", "warn", message, "Run: llmproxy provider-keys rekey")
    # The one that is handed over opens all there is: see above.
    message = f"{new} is left of a change that was cut short; nothing here is sealed under it"
    return Check("master key", "warn", message, f"Remove it: rm {shlex.quote(str(new))}")


def _check_providers(tx: "Tx") -> Iterator[Check]:
    from llmproxy import key_pool
    from llmproxy.provider_states import NO_ACTIVE_KEYS, state_of

    providers = key_pool.list_providers(tx)
    if not providers:
        advice = "Add a key: llmproxy provider-keys add openai"
        yield Check("providers", "warn", "none is set up", advice)
        return
    active = []
    for provider in providers:
        keys = key_pool.list_provider_keys(tx, provider.name)
        state = state_of(provider, keys)
        if state == "paused":
            since = output.short_time(provider.paused_at_ms)
            message = f"{provider.name} is paused since {since} UTC: {provider.paused_reason}"
            advice = f"llmproxy providers resume {provider.name}"
            yield Check("providers", "warn", message, advice)
        elif state == NO_ACTIVE_KEYS:
            yield _no_active_keys(provider.name, keys)
        else:
            active.append(provider.name)
            yield from _keys_taken_out(keys)
    if active:
        yield Check("providers", "ok", f"{', '.join(active)} can be used")


def _keys_taken_out(keys: "list[ProviderKey]") -> Iterator[Check]:
    """Name the keys that the proxy itself does not use any more, though others still work."""
    for key in keys:
        if key.state in {"dead", "out_of_quota"}:
            since = output.short_time(key.state_since_ms)
            state = key.state.replace("_", " ")
            message = f"{key.provider}: {key.name} is {state} since {since} UTC: {key.state_reason}"
            advice = f"Mend it there, then: llmproxy provider-keys enable {key.provider} {key.name}"
            yield Check("providers", "warn", message, advice)


def _no_active_keys(provider: str, keys: "list[ProviderKey]") -> Check:
    if keys and keys[0].is_keyless:
        message = f"{provider} needs no key, but is {keys[0].state}"
        advice = f"Use it again: llmproxy provider-keys enable {provider} {keys[0].name}"
        return Check("providers", "warn", message, advice)
    why = "; ".join(f"{key.name} is {key.state}" for key in keys) or "it has none"
    advice = f"llmproxy provider-keys add {provider}"
    return Check("providers", "warn", f"{provider} has no active keys ({why})", advice)
