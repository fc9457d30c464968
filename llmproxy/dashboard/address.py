"""Owns where the dashboard is, for those who only name it: it loads nothing heavy."""

from llmproxy.config import Settings

PREFIX = "/dashboard"
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - to listen on, not to go to


def sign_in_url(settings: Settings, secret: str) -> str:
    """Return the link with a secret, at `public_url` or where the server listens."""
    host = EVERYWHERE.get(settings.host, settings.host)
    own = f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"
    return f"{settings.public_url or own}{PREFIX}/sign-in/{secret}"
