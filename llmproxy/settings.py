"""Owns what can be set: its default, its bounds, and what is said of it. Reads nothing."""

import re
from typing import NamedTuple

import msgspec

from llmproxy.errors import ConfigError
from llmproxy.limits import Network, parse_networks


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


def check_value(setting: Setting, value: object, origin: str) -> object:
    """Return a value as the setting has it.

    Raises:
        ConfigError: it is of the wrong kind or out of its bounds; `origin` is where it came from.
    """
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


def trusted_networks(settings: Settings) -> tuple[Network, ...]:
    """Return where trusted reverse proxies are."""
    return parse_networks(settings.trusted_proxies)
