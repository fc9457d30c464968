"""Owns where settings, files and the master key are found; the sole reader of the environment.

A setting comes from its flag, else from `LLMPROXY_<NAME>`, else from `config.toml`, else from its
default. Must not open the database.
"""

import os
import pwd
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import platformdirs

from llmproxy import master_key
from llmproxy.errors import ConfigError, VaultError
from llmproxy.settings import SETTINGS, Settings, check_value
from llmproxy.vault import Vault

HOME_VARIABLE = "LLMPROXY_HOME"
MASTER_KEY_VARIABLE = "LLMPROXY_MASTER_KEY"
MASTER_KEY_FILE_VARIABLE = "LLMPROXY_MASTER_KEY_FILE"
CREDENTIAL_NAME = "llmproxy-master-key"


class Paths(NamedTuple):
    """Where things are: the database in its data directory, the rest in another."""

    database: Path
    config_file: Path
    master_key: Path
    catalog: Path
    """Where `catalog update` puts a newer catalog; it counts from then on."""


class Config(NamedTuple):
    """The settings in force, where each came from, and where things are."""

    settings: Settings
    origins: dict[str, str]
    paths: Paths


def find_paths(environ: Mapping[str, str] = os.environ) -> Paths:
    """Return the paths in force: below LLMPROXY_HOME if it is set, else the platform's own."""
    home = environ.get(HOME_VARIABLE)
    if home:
        data, config = Path(home) / "data", Path(home) / "config"
    else:
        data = Path(platformdirs.user_data_dir("llmproxy"))
        config = Path(platformdirs.user_config_dir("llmproxy"))
    return Paths(
        database=data / "llmproxy.db",
        config_file=config / "config.toml",
        master_key=config / "master.key",
        catalog=config / "model_catalog.json",
    )


def find_catalog(config: Config) -> Path | None:
    """Return the catalog file in force, None for the one that came with the program.

    The setting `catalog_file` counts first, then what `catalog update` has put in place.
    """
    if config.settings.catalog_file:
        return Path(config.settings.catalog_file)
    return config.paths.catalog if config.paths.catalog.exists() else None


def paths_origin(environ: Mapping[str, str] = os.environ) -> str:
    """Return what says where files are: LLMPROXY_HOME, or the platform's conventions."""
    return HOME_VARIABLE if environ.get(HOME_VARIABLE) else "platform"


def load_config(
    flags: Mapping[str, object] | None = None, environ: Mapping[str, str] = os.environ
) -> Config:
    """Read all settings; a flag of None counts as not given.

    Raises:
        ConfigError: an unknown name, a value of the wrong kind or out of its bounds, or a
            configuration file that cannot be read.
    """
    paths = find_paths(environ)
    from_file = _read_file(paths.config_file)
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    for setting in SETTINGS:
        variable = f"LLMPROXY_{setting.name.upper()}"
        if flags and flags.get(setting.name) is not None:
            values[setting.name], origin = flags[setting.name], "flag"
        elif variable in environ:
            values[setting.name], origin = environ[variable], variable
        elif setting.name in from_file:
            values[setting.name], origin = from_file[setting.name], str(paths.config_file)
        else:
            origins[setting.name] = "default"
            continue
        values[setting.name] = check_value(setting, values[setting.name], origin)
        origins[setting.name] = origin
    return Config(Settings(**values), origins, paths)  # type: ignore[arg-type]


def _read_file(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            found = tomllib.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, tomllib.TOMLDecodeError) as error:
        msg = f"{path} cannot be read: {error}"
        raise ConfigError(msg) from error
    unknown = sorted(set(found) - {setting.name for setting in SETTINGS})
    if unknown:
        msg = f"{path} has unknown settings: {', '.join(unknown)}. See: llmproxy config show"
        raise ConfigError(msg)
    return found


class MasterKey(NamedTuple):
    """The master key in force: where it comes from, and the one that is about to replace it."""

    origin: str
    text: str
    path: Path | None
    """The file that it can be replaced in, no link to it; None where somebody hands it over."""
    new_text: str | None = None

    def __repr__(self) -> str:  # type: ignore[explicit-override]
        """Name where it comes from, and no key."""
        return f"MasterKey({self.origin!r})"

    def vault(self) -> Vault:
        """Return the vault under it, which opens what is sealed under its successor too.

        Raises:
            VaultError: it is no master key.
        """
        try:
            return Vault(self.text, self.new_text)
        except VaultError as error:
            msg = f"{error} It comes from {self.origin}."
            raise VaultError(msg) from None


class _Place(NamedTuple):
    path: Path
    is_handed_over: bool


def _master_key_place(paths: Paths, environ: Mapping[str, str]) -> _Place | None:
    named = environ.get(MASTER_KEY_FILE_VARIABLE)
    if named:
        return _Place(Path(named), is_handed_over=False)
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    if credentials and master_key.is_there(handed := Path(credentials) / CREDENTIAL_NAME):
        return _Place(handed, is_handed_over=True)
    own = _Place(paths.master_key, is_handed_over=False)
    return own if master_key.is_there(paths.master_key) else None


def master_key_origin(paths: Paths, environ: Mapping[str, str] = os.environ) -> str | None:
    """Return where the master key in force comes from (never the key), None when there is none."""
    if environ.get(MASTER_KEY_VARIABLE):
        return MASTER_KEY_VARIABLE
    place = _master_key_place(paths, environ)
    return None if place is None else str(place.path)


def find_master_key(paths: Paths, environ: Mapping[str, str] = os.environ) -> MasterKey | None:
    """Return the master key in force, or None when none has been made yet.

    Looked for in LLMPROXY_MASTER_KEY, LLMPROXY_MASTER_KEY_FILE, the systemd credential
    `llmproxy-master-key`, and `master.key` in the configuration directory.

    Raises:
        VaultError: one cannot be looked for or read, or others can read it.
    """
    value = environ.get(MASTER_KEY_VARIABLE)
    if value:
        return MasterKey(MASTER_KEY_VARIABLE, value, None)
    place = _master_key_place(paths, environ)
    if place is None:
        return None
    if place.is_handed_over:
        return MasterKey(str(place.path), master_key.read(place.path, is_handed_over=True), None)
    # Behind links: a new one belongs where the operator has put the old one. A pipe has no name.
    behind = Path(os.path.realpath(place.path))
    path = behind if master_key.is_there(behind) else place.path
    if not path.is_file():  # a pipe says it once, and cannot be replaced
        return MasterKey(str(place.path), master_key.read(path), None)
    new_text = master_key.read_new(path)
    return MasterKey(str(place.path), master_key.read(path), path, new_text)


def find_spent_pipe(paths: Paths, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the pipe that the master key came through, None where it can be read once more.

    To be asked by whoever has read it already: a pipe says it only once, and to open it again
    would wait for ever.
    """
    if environ.get(MASTER_KEY_VARIABLE):
        return None
    place = _master_key_place(paths, environ)
    is_pipe = place is not None and place.path.exists() and not place.path.is_file()
    return place.path if place is not None and is_pipe else None


def load_vault_again(paths: Paths, environ: Mapping[str, str] = os.environ) -> Vault | None:
    """Do as `load_vault` does, in a process that has done so before.

    Raises:
        VaultError: as `load_vault`, or the master key came through a pipe.
    """
    pipe = find_spent_pipe(paths, environ)
    if pipe is not None:
        msg = f"The master key comes from {pipe}, which says it only once."
        raise VaultError(msg)
    return load_vault(paths, environ)


def load_vault(paths: Paths, environ: Mapping[str, str] = os.environ) -> Vault | None:
    """Return the vault under the master key in force, or None when none has been made yet.

    It opens whatever is sealed, also in the midst of a change of the master key. What is to be
    sealed needs the vault of `sealing.py`.

    Raises:
        VaultError: a master key is named but cannot be read or is none.
    """
    found = find_master_key(paths, environ)
    return None if found is None else found.vault()


def load_or_make_vault(paths: Paths, environ: Mapping[str, str] = os.environ) -> Vault:
    """Return the vault, making `master.key` (0600) when there is no master key anywhere.

    Raises:
        VaultError: as `load_vault`, or it cannot be made.
    """
    vault = load_vault(paths, environ)
    return vault or Vault(master_key.make(paths.master_key))


def environ_for_home(home: Path, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return an environment for another llmproxy that uses `home` and no setting of this one."""
    dropped = ("LLMPROXY_", "CREDENTIALS_DIRECTORY")
    kept = {name: value for name, value in environ.items() if not name.startswith(dropped)}
    return {**kept, HOME_VARIABLE: str(home)}


def notify_socket(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return where the service manager wants to be told that the server is ready, if it does."""
    return environ.get("NOTIFY_SOCKET")


def operator_name(environ: Mapping[str, str] = os.environ) -> str:
    """Return who acts on the command line, as the history will show it."""
    name = environ.get("USER") or environ.get("LOGNAME")
    if not name:  # as in containers and under cron
        with suppress(KeyError):
            name = pwd.getpwuid(os.getuid()).pw_name
    return "cli:" + (name or str(os.getuid()))[:60]
