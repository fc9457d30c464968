"""Owns what the server says when it has started: where it is, what it has, what is missing."""

import ipaddress
from collections.abc import Iterator
from typing import NamedTuple

from llmproxy import __version__
from llmproxy.catalog import Catalog
from llmproxy.config import Config, find_catalog
from llmproxy.live_keys import Pool

FIRST_USER = "llmproxy users create ann --credit 5 --key laptop"

Address = tuple[str, int]


class Started(NamedTuple):
    """What there is to tell of a server that accepts connections."""

    config: Config
    address: Address
    catalog: Catalog
    pool: Pool
    has_api_keys: bool
    """Some user has an API key that works."""
    now_ms: int

    def line(self) -> str:
        """Return the one line for a log."""
        database = self.config.paths.database
        return f"llmproxy {__version__} serves {_url(self.address)} from {database}"

    def banner(self) -> str:
        """Return the lines for a person at a terminal; what is missing comes with a command."""
        settings = self.config.settings
        rows = [("address", _url(self.address))]
        if settings.public_url:
            rows.append(("public", settings.public_url))
        if settings.dashboard:
            rows.append(("dashboard", self._dashboard()))
        if settings.metrics_port:
            rows.append(
                ("metrics", _url((settings.metrics_host, settings.metrics_port)) + "/metrics")
            )
        source = find_catalog(self.config) or "built in"
        rows += [
            ("database", str(self.config.paths.database)),
            ("catalog", f"{len(self.catalog.models())} models, {source}"),
            *(("providers" if not n else "", text) for n, text in enumerate(self._providers())),
        ]
        if settings.strict:
            rows.append(("strict", "only requests whose cost has an upper bound are taken"))
        if not self.has_api_keys:
            rows.append(("users", f"no API key. Next: {FIRST_USER}"))
        lines = "".join(f"  {name:<10} {text}\n" for name, text in rows)
        end = "Ctrl-C stops it; running answers are finished first.\n"
        return f"llmproxy {__version__}\n\n{lines}\n{end}"

    def _dashboard(self) -> str:
        """Return where the dashboard is."""
        settings = self.config.settings
        address = self.address
        if settings.dashboard_port:
            address = (settings.dashboard_host, settings.dashboard_port)
        return f"{_url(address)}/dashboard"

    def warning(self) -> str | None:
        """Return what to do when keys and prompts would cross a network readable by others."""
        settings = self.config.settings
        hosts = [] if settings.public_url.startswith("https://") else [self.address[0]]
        if settings.dashboard and settings.dashboard_port:
            hosts.append(settings.dashboard_host)
        host = next((each for each in hosts if not _is_loopback(each)), None)
        if host is None:
            return None
        return (
            f"{host} can be reached from outside, and nothing here encrypts: API keys and prompts "
            "can be read on the way. Put a reverse proxy with TLS in front and set public_url to "
            "its https:// address (docs/operating.md), or listen on 127.0.0.1."
        )

    def _providers(self) -> Iterator[str]:
        """Yield a line for each provider that has keys, or what to do when no key can be used."""
        for name, provider in sorted(self.pool.providers.items()):
            counts = self.pool.count_states(name, self.now_ms)
            if not any(counts.values()):
                continue
            told = ", ".join(
                f"{count} {state.replace('_', ' ')}" for state, count in counts.items() if count
            )
            paused = f"; paused: {provider.paused_reason}" if provider.paused_at_ms else ""
            yield f"{name}: {told}{paused}"
        if not self.pool.has_usable_key(self.now_ms):
            yield "no key that can be used. Next: llmproxy provider-keys add openai"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:  # a name; where it leads is not known here
        return False


def _url(address: Address) -> str:
    host, port = address
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
