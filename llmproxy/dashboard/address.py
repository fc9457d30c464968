"""Owns where the proxy and its dashboard are, for those who only name them: loads nothing heavy."""

import re

from llmproxy.settings import Settings

PREFIX = "/dashboard"
PICTURES = "/public/images"
"""Where the user guide looks for its pictures."""
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - to listen on, not to go to


def is_dashboard(path: str) -> bool:
    """Say whether a path, decoded, is one of the dashboard's."""
    return path.startswith((f"{PREFIX}/", f"{PICTURES}/")) or path == PREFIX


def dashboard_url(settings: Settings, port: int = 0) -> str:
    """Return where the dashboard is: at its own port, at `public_url`, or at the proxy's port.

    `port` is the one that is listened on, where that is known.
    """
    host, configured = settings.host, settings.port
    if settings.dashboard_port:
        host, configured = settings.dashboard_host, settings.dashboard_port
    elif settings.public_url:
        return settings.public_url + PREFIX
    return _url(host, port or configured) + PREFIX


def proxy_url(settings: Settings, port: int = 0) -> str:
    """Return where clients reach the proxy: at `public_url`, or at its port.

    `port` is the one that is listened on, where that is known.
    """
    return settings.public_url or _url(settings.host, port or settings.port)


def _url(host: str, port: int) -> str:
    host = EVERYWHERE.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def says_where(settings: Settings, port: int, dashboard_port: int) -> str:
    """Return what the serving process leaves beside the database: where it and its dashboard are.

    The ports are those that are listened on.
    """
    said = f"serves {proxy_url(settings, port)}"
    if settings.dashboard:
        said += f", dashboard at {dashboard_url(settings, dashboard_port)}"
    return said


def told_where(holder: str) -> str | None:
    """Return where the dashboard of the process that serves is, None when it does not say."""
    found = re.search(r"dashboard at (\S+)$", holder)
    return found[1] if found else None


def told_proxy(holder: str) -> str | None:
    """Return where the process that serves is reached, None when it does not say."""
    found = re.search(r"serves ([^\s,]+)", holder)
    return found[1] if found else None
