"""Owns the exact table of paths: only what is listed here ever reaches a provider.

Matched on the raw bytes of the path, so that no decoding can make two paths one (security S4).
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import unquote

from llmproxy.dialects.base import Endpoint
from llmproxy.dialects.families import Face, Method, faces_of
from llmproxy.errors import ApiError, invalid_request, unknown_path, wrong_method
from llmproxy.refused_endpoints import find_refused


def endpoints_of(provider: str, dialect: str) -> tuple[Endpoint, ...]:
    """Return a provider's endpoints, but those that stand below a model."""
    return tuple(one for face in faces_of(provider, dialect) for one in face.endpoints)


_MODELS = b"models"
_MODEL_NAME = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""Of a model in a path that goes upstream: nothing that could lead it elsewhere."""
_COLON = re.compile(rb"%3a", re.IGNORECASE)
"""As some clients write the one in `{model}:{method}`."""
_AZURE = re.compile(rb"(/v1/[^/]+/)openai/deployments/[A-Za-z0-9._-]{1,128}/([^?]+)")


class Route(NamedTuple):
    """Where a path leads: an endpoint of a provider, or (endpoint None) what we answer ourselves.

    That is the list of models, one model of it by its id, or nothing at all, for clients that
    look whether the base URL is there.
    """

    provider: str
    dialect: str
    endpoint: Endpoint | None = None
    model_id: str | None = None
    is_base: bool = False
    upstream: str = ""
    """What stands between the provider's base URL and the endpoint's own path."""
    query: bytes = b""
    """What of the client's query goes upstream."""


class _Below(NamedTuple):
    """The endpoints below the models of a list: `{model}:{method}`."""

    route: Route
    by_model: Mapping[str, Method]


class Routes:
    """The table for the providers that are known now: `{name: dialect}`."""

    def __init__(self, providers: Iterable[tuple[str, str]]) -> None:
        """Build the table."""
        self._post: dict[bytes, Route] = {}
        self._get: dict[bytes, Route] = {}
        self._bases: dict[bytes, Route] = {}
        self._below: dict[bytes, _Below] = {}
        for provider, dialect in providers:
            root = f"/v1/{provider}"
            self._bases |= dict.fromkeys(
                (root.encode(), f"{root}/".encode()), Route(provider, dialect, is_base=True)
            )
            for face in faces_of(provider, dialect):
                self._add(provider, root, face)

    def _add(self, provider: str, root: str, face: Face) -> None:
        """Add the paths of one face of a provider."""
        route = Route(provider, face.dialect, upstream=face.upstream, query=face.query)
        for inner in face.inner:
            base = f"{root}/{inner}".encode()
            self._get.setdefault(base + _MODELS, route)
            for endpoint in face.endpoints:
                self._post[base + endpoint.name.encode()] = route._replace(endpoint=endpoint)
            if face.by_model:
                self._below[base + _MODELS] = _Below(route, face.by_model)

    def find(self, method: str, raw_path: bytes) -> Route:
        """Return where a request goes.

        Raises:
            ApiError: 404 for a path that leads nowhere, 405 for another method, 400 for an
                endpoint of a provider that cannot be metered.
        """
        if method == "POST":
            route = self._post.get(raw_path) or self._of_model(raw_path) or self._of_azure(raw_path)
        elif method in {"GET", "HEAD"}:
            route = self._get.get(raw_path) or self._bases.get(raw_path) or self._model(raw_path)
        else:
            route = None
        if route is None:
            raise self._refusal(raw_path)
        return route

    def _model(self, raw_path: bytes) -> Route | None:
        """Return the route of one model of a list; its id is looked up, never sent on."""
        before, model = _split_models(raw_path)
        route = self._get.get(before) if model else None
        return route and route._replace(model_id=unquote(model.decode("latin-1")))

    def _of_model(self, raw_path: bytes) -> Route | None:
        """Return the route of `models/{model}:{method}`; the endpoint is told its model.

        Raises:
            ApiError: 400, the model's name could lead elsewhere at the provider.
        """
        before, named = _split_models(raw_path)
        below = self._below.get(before)
        if below is not None and b":" not in named:
            named = _COLON.sub(b":", named)  # what goes upstream is made anew
        model, _, method = named.rpartition(b":")
        found = below and below.by_model.get(method.decode("latin-1"))
        if below is None or found is None:
            return None
        if not _MODEL_NAME.fullmatch(model):
            raise invalid_request(
                "The model in the path must be its plain name, of letters, digits, `.`, `_` and "
                "`-`, such as models/gemini-2.5-flash:generateContent.",
                param="model",
            )
        return below.route._replace(endpoint=found.make(model.decode()), query=found.query)

    def _of_azure(self, raw_path: bytes) -> Route | None:
        """Return the route of a path as Azure's SDKs write it.

        Where it leads, and what it costs, says the model in the body; the deployment is its name.
        """
        match = _AZURE.fullmatch(raw_path)
        return self._post.get(match[1] + match[2]) if match else None

    def _refusal(self, raw_path: bytes) -> ApiError:
        if raw_path in self._post or self._of_model(raw_path) or self._of_azure(raw_path):
            return wrong_method("POST")
        before, named = _split_models(raw_path)
        is_method = before in self._below and (b":" in named or bool(_COLON.search(named)))
        if not is_method and (raw_path in self._get or self._model(raw_path)):
            return wrong_method("GET")
        provider, _, endpoint = raw_path.removeprefix(b"/v1/").partition(b"/")
        # Of an endpoint that is served, "cannot be metered" would be a lie.
        has_stray_slash = b"//" in raw_path or raw_path.endswith(b"/")
        if b"/v1/" + provider not in self._bases or not endpoint or has_stray_slash:
            return unknown_path()
        name = provider.decode(errors="replace")
        known = ", ".join(sorted(path.decode() for path in self._paths_of(provider)))
        shown = endpoint.decode(errors="replace")[:100]
        refused = find_refused(shown)
        reason = f": {refused.why}. {refused.instead}." if refused else "."
        return ApiError(
            400,
            "endpoint_not_metered",
            f'"{shown}" of {name} cannot be metered and is not forwarded{reason} '
            f"Available: {known}.",
        )

    def _paths_of(self, provider: bytes) -> list[bytes]:
        """Return a provider's paths, each once: without the aliases below other bases."""
        base = b"/v1/" + provider + b"/"
        first, *others = faces_of(provider.decode(), self._bases[base].dialect)
        below = f"{first.inner[0]}models/{{model}}:"
        names = [f"{below}{method}" for method in first.by_model]
        names += [endpoint.name for face in (first, *others) for endpoint in face.endpoints]
        return [base + name.encode() for name in names] + [base + _MODELS]


def _split_models(raw_path: bytes) -> tuple[bytes, bytes]:
    """Return a path up to its list of models, and what stands below that."""
    before, _, below = raw_path.partition(b"/" + _MODELS + b"/")
    return before + b"/" + _MODELS, below


def upstream_path(route: Route, endpoint: Endpoint, query: bytes) -> str:
    """Return where a request goes behind the provider's base URL, with what passes of its query."""
    return route.upstream + endpoint.upstream_path + passed_query(query, route.query)


def passed_query(query: bytes, passed: bytes) -> str:
    """Return what of a client's query goes upstream: `passed`, if it is there, and nothing else."""
    return f"?{passed.decode()}" if query and passed in query.split(b"&") else ""
