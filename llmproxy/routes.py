"""Owns the exact table of paths: only what is listed here ever reaches a provider.

Matched on the raw bytes of the path, so that no decoding can make two paths one (security S4).
"""

from collections.abc import Iterable
from typing import NamedTuple

from llmproxy.dialects.anthropic_messages import AnthropicMessages
from llmproxy.dialects.base import Endpoint
from llmproxy.dialects.openai_chat import OpenAIChat
from llmproxy.errors import ApiError, unknown_path, wrong_method

METERED: dict[str, tuple[Endpoint, ...]] = {
    "openai": (OpenAIChat(),),
    "anthropic": (AnthropicMessages(),),
}
"""The endpoints of each dialect family."""

QUERY_PASSED = {b"beta=true": "?beta=true"}
"""Queries that are sent on; every other one is dropped."""


class Route(NamedTuple):
    """Where a path leads: an endpoint of a provider, or its list of models (endpoint None)."""

    provider: str
    dialect: str
    endpoint: Endpoint | None


class Routes:
    """The table for the providers that are known now: `{name: dialect}`."""

    def __init__(self, providers: Iterable[tuple[str, str]]) -> None:
        """Build the table."""
        self._post: dict[bytes, Route] = {}
        self._get: dict[bytes, Route] = {}
        self._providers: set[str] = set()
        for provider, dialect in providers:
            self._providers.add(provider)
            # Anthropic's SDKs add "/v1" to the base URL themselves (wire.md F.2).
            for base in (f"/v1/{provider}/", f"/v1/{provider}/v1/"):
                self._get[f"{base}models".encode()] = Route(provider, dialect, None)
                for endpoint in METERED[dialect]:
                    path = f"{base}{endpoint.name}".encode()
                    self._post[path] = Route(provider, dialect, endpoint)

    def find(self, method: str, raw_path: bytes) -> Route:
        """Return where a request goes.

        Raises:
            ApiError: 404 for a path that leads nowhere, 405 for another method, 400 for an
                endpoint of a provider that cannot be metered.
        """
        route = (self._post if method == "POST" else self._get).get(raw_path)
        if route is not None and method in {"POST", "GET"}:
            return route
        if raw_path in self._post or raw_path in self._get:
            allowed = "POST" if raw_path in self._post else "GET"
            raise wrong_method(allowed)
        provider, _, endpoint = raw_path.removeprefix(b"/v1/").partition(b"/")
        name = provider.decode(errors="replace")
        if name not in self._providers or not endpoint:
            raise unknown_path()
        known = ", ".join(sorted(path.decode() for path in self._paths_of(provider)))
        shown = endpoint.decode(errors="replace")[:100]
        raise ApiError(
            400,
            "endpoint_not_metered",
            f'"{shown}" of {name} cannot be metered and is not forwarded. Available: {known}.',
        )

    def _paths_of(self, provider: bytes) -> list[bytes]:
        base = b"/v1/" + provider + b"/"
        doubled = base + b"v1/"
        return [
            path
            for path in (*self._post, *self._get)
            if path.startswith(base) and not path.startswith(doubled)
        ]
