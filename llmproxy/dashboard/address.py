"""Owns where the dashboard is, for those who only name it: it loads nothing heavy."""

from llmproxy.config import Settings

PREFIX = "/dashboard"
PICTURES = "/public/images"
"""Where the user guide looks for its pictures."""
_PREFIX, _PICTURES = PREFIX.encode(), PICTURES.encode()
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - to listen on, not to go to


def sign_in_url(settings: Settings, secret: str) -> str:
    """Return the link with a secret: at the dashboard's own port, `public_url`, or the proxy's."""
    host, port, public = settings.host, settings.port, settings.public_url
    if settings.dashboard_port:
        host, port, public = settings.dashboard_host, settings.dashboard_port, ""
    host = EVERYWHERE.get(host, host)
    own = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    return f"{public or own}{PREFIX}/sign-in/{secret}"


def is_dashboard(raw_path: bytes) -> bool:
    """Say whether a request's path, as it came, is one of the dashboard's."""
    return raw_path.startswith((_PREFIX, _PICTURES))
