"""Owns settings, paths and the master key's whereabouts; the sole reader of the environment.

A setting comes from its flag, else from `LLMPROXY_<NAME>`, else from `config.toml`, else from its
default. Must not open the database.
"""

import os
import pwd
import re
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec
import platformdirs

from llmproxy import master_key
from llmproxy.errors import ConfigError, VaultError
from llmproxy.limits import Network, parse_networks
from llmproxy.vault import Vault

HOME_VARIABLE = "LLMPROXY_HOME"
MASTER_KEY_VARIABLE = "LLMPROXY_MASTER_KEY"
MASTER_KEY_FILE_VARIABLE = "LLMPROXY_MASTER_KEY_FILE"
CREDENTIAL_NAME = "llmproxy-master-key"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be set; each field is documented in `SETTINGS`."""

    host: str = "127.0.0.1"
    port: int = 8000
    public_url: str = ""
    dashboard: bool = True
    dashboard_host: str = "127.0.0.1"
    dashboard_port: int = 0
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 0
    log_level: str = "info"
    log_requests: bool = True
    catalog_file: str = ""
    hold_stream_output_tokens: int = 4096
    strict: bool = False
    trusted_proxies: str = ""
    connections_max: int = 4096
    head_bytes_max: int = 64 * 1024
    body_bytes_max: int = 32 * 1024 * 1024
    body_bytes_in_flight_max: int = 256 * 1024 * 1024
    header_timeout_s: int = 10
    body_timeout_s: int = 60
    connect_timeout_s: int = 5
    first_byte_timeout_s: int = 600
    idle_timeout_s: int = 120
    total_timeout_s: int = 3600
    drain_timeout_s: int = 120
    drains_max: int = 64
    stall_timeout_s: int = 60
    shutdown_timeout_s: int = 60
    pause_after_failures: int = 5


class Setting(NamedTuple):
    """What `config show` and the documentation say of a setting; bounds for whole numbers."""

    name: str
    help: str
    lowest: int = 0
    highest: int = 0


SETTINGS = (
    Setting("host", "Address to listen on."),
    Setting("port", "Port to listen on.", 0, 65535),
    Setting(
        "public_url",
        "The address that users type, such as `https://llm.example.org`, where a reverse proxy "
        "stands in front.",
    ),
    Setting("dashboard", "Serve the dashboard under `/dashboard`: true or false."),
    Setting("dashboard_host", "Address on which the dashboard is served if it has its own port."),
    Setting(
        "dashboard_port",
        "Port of the dashboard, which is then served on no other; 0: that of the proxy.",
        0,
        65535,
    ),
    Setting("metrics_host", "Address on which `/metrics` is served."),
    Setting(
        "metrics_port", "Port of `/metrics`, with `/healthz` and `/readyz`; 0: none.", 0, 65535
    ),
    Setting("log_level", "debug, info, warning or error."),
    Setting("log_requests", "Log one line for each request at its end: true or false."),
    Setting("catalog_file", "A model catalog of your own instead of the updated or built-in one."),
    Setting(
        "hold_stream_output_tokens",
        "Output tokens held for a stream at first; its hold grows as it is seen passing.",
        256,
        10_000_000,
    ),
    Setting(
        "strict",
        "Hold what no honest answer can cost more than, and refuse requests without such a bound: "
        "true or false.",
    ),
    Setting(
        "trusted_proxies",
        "Addresses and networks of reverse proxies, with commas between them: from these the last "
        "other address in `x-forwarded-for` counts as the client's, for the networks of API keys.",
    ),
    Setting(
        "connections_max",
        "Connections of clients at once; more are told to come again in a moment.",
        1,
        1_000_000,
    ),
    Setting(
        "head_bytes_max", "Largest request line and headers, in bytes.", 1024, 16 * 1024 * 1024
    ),
    Setting("body_bytes_max", "Largest request body, in bytes.", 1024, 256 * 1024 * 1024),
    Setting(
        "body_bytes_in_flight_max",
        "Bytes of all request bodies held in memory at once; one always fits.",
        1024,
        1024 * 1024 * 1024 * 1024,
    ),
    Setting("header_timeout_s", "Seconds a request's head may take to come.", 1, 3600),
    Setting(
        "body_timeout_s",
        "Seconds a request's body may take to come, and one more for each MiB.",
        1,
        86400,
    ),
    Setting("connect_timeout_s", "Seconds to reach a provider.", 1, 600),
    Setting("first_byte_timeout_s", "Seconds until a provider's answer must begin.", 1, 86400),
    Setting("idle_timeout_s", "Seconds a running answer may be silent.", 1, 86400),
    Setting("total_timeout_s", "Seconds a whole answer may take.", 1, 86400),
    Setting("drain_timeout_s", "Seconds to read on after a client has left.", 0, 86400),
    Setting("drains_max", "Answers read on at once after their clients left.", 0, 10000),
    Setting("stall_timeout_s", "Seconds a client may not read before it counts as gone.", 1, 86400),
    Setting("shutdown_timeout_s", "Seconds to finish running answers on SIGTERM.", 0, 86400),
    Setting(
        "pause_after_failures",
        "Failures of a provider in a row after which it is left alone for a while; 0: never.",
        0,
        1000,
    ),
)

_PUBLIC_URL = re.compile(r"https?://[\w.-]+(:\d+)?(/[\w./~-]*)?", re.ASCII)
SWITCHES = {"true": True, "false": False}
LOG_LEVELS = ("debug", "info", "warning", "error")


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
        values[setting.name] = _checked(setting, values[setting.name], origin)
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


def _checked(setting: Setting, value: object, origin: str) -> object:
    kind = type(getattr(Settings(), setting.name))
    if kind is str:
        return _checked_text(setting, value, origin)
    if kind is bool:
        return _checked_switch(setting, value, origin)
    return _checked_number(setting, value, origin)


def _checked_text(setting: Setting, value: object, origin: str) -> str:
    if not isinstance(value, str):
        msg = f"{setting.name} (from {origin}) must be text, not {value!r:.60}."
        raise ConfigError(msg)
    if setting.name == "log_level" and value not in LOG_LEVELS:
        msg = f"log_level (from {origin}) must be one of {', '.join(LOG_LEVELS)}."
        raise ConfigError(msg)
    if setting.name == "public_url":
        value = value.rstrip("/")
        if value and not _PUBLIC_URL.fullmatch(value):
            msg = (
                f"public_url (from {origin}) must be an address such as https://llm.example.org, "
                f"not {value!r:.60}."
            )
            raise ConfigError(msg)
    if setting.name == "trusted_proxies":
        try:
            parse_networks(value)
        except ValueError as error:
            msg = (
                f"trusted_proxies (from {origin}) must be addresses or networks such as "
                f"127.0.0.1,10.0.0.0/8: {error}."
            )
            raise ConfigError(msg) from error
    return value


def trusted_networks(settings: Settings) -> tuple[Network, ...]:
    """Return where trusted reverse proxies are."""
    return parse_networks(settings.trusted_proxies)


def _checked_switch(setting: Setting, value: object, origin: str) -> bool:
    switched = value if isinstance(value, bool) else SWITCHES.get(str(value).lower())
    if switched is None:
        msg = f"{setting.name} (from {origin}) must be true or false, not {value!r:.60}."
        raise ConfigError(msg)
    return switched


def _checked_number(setting: Setting, value: object, origin: str) -> int:
    try:
        number = int(value) if isinstance(value, str) else value
    except ValueError:
        number = None
    if type(number) is not int or not setting.lowest <= number <= setting.highest:
        msg = (
            f"{setting.name} (from {origin}) must be a whole number from {setting.lowest} to "
            f"{setting.highest}, not {value!r:.60}."
        )
        raise ConfigError(msg)
    return number


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
