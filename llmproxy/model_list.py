"""Owns what clients are told of the models: `GET …/models[/ID]`, and the nearest to an unknown one.

Pure. Must not price anything.
"""

import json
from datetime import UTC, datetime
from functools import partial

from llmproxy.catalog import Catalog, Model
from llmproxy.catalog_nearest import find_nearest
from llmproxy.dialects.gemini_contents import GENERATE, STREAM
from llmproxy.dialects.gemini_embeddings import COUNT, EMBED, EMBED_BATCH
from llmproxy.errors import ApiError, model_not_found, unknown_model_pricing
from llmproxy.limits import Limits
from llmproxy.routes import Route


def models_body(catalog: Catalog, route: Route, limits: Limits | None = None) -> bytes:
    """Return the JSON of the models that can be used, or of the one in the route (wire.md F.5).

    What the limits of an API key do not allow is not there for it.

    Raises:
        ApiError: 404, there is no model of that name.
    """
    describe = _DESCRIBE.get(route.dialect, _describe_openai)
    updated = datetime.strptime(catalog.updated, "%Y-%m-%d").replace(tzinfo=UTC)
    if route.model_id is not None:
        model = catalog.find(route.provider, route.model_id)
        if model is None or not _is_allowed(model, limits):
            raise model_not_found(route.provider, route.model_id)
        return json.dumps(describe(model, updated)).encode()
    models = [model for model in catalog.models(route.provider) if _is_allowed(model, limits)]
    data = [describe(model, updated) for model in models]
    if route.dialect == "gemini":
        return json.dumps({"models": data}).encode()
    if route.dialect != "anthropic":
        return json.dumps({"object": "list", "data": data}).encode()
    first, last = (models[0].id, models[-1].id) if models else (None, None)
    page = {"data": data, "has_more": False, "first_id": first, "last_id": last}
    return json.dumps(page).encode()


def unknown_model(
    catalog: Catalog,
    provider: str,
    name: str,
    limits: Limits | None,
    *,
    set_up: frozenset[str],
) -> ApiError:
    """Return the 400 for a model without a price; it names the nearest that can be used.

    Args:
        catalog: where to look.
        provider: whose model was asked for.
        name: what it was asked for by.
        limits: of the API key that asks.
        set_up: the providers that are served.
    """
    near = find_nearest(catalog, provider, name, partial(_is_allowed, limits=limits))
    elsewhere = [(model.provider, model.id) for model in near.elsewhere if model.provider in set_up]
    return unknown_model_pricing(provider, name, [model.id for model in near.here], elsewhere)


def _is_allowed(model: Model, limits: Limits | None) -> bool:
    if limits is None:
        return True
    return limits.allows_provider(model.provider) and limits.allows_model(model.id)


def _describe_openai(model: Model, updated: datetime) -> dict[str, object]:
    created = int(updated.timestamp())
    return {"id": model.id, "object": "model", "created": created, "owned_by": model.provider}


def _describe_anthropic(model: Model, updated: datetime) -> dict[str, object]:
    created = updated.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"type": "model", "id": model.id, "display_name": model.id, "created_at": created}


_METHODS_BY_MODE = {
    "chat": [GENERATE, STREAM, COUNT],
    "embedding": [EMBED, EMBED_BATCH, COUNT],
}


def _describe_gemini(model: Model, updated: datetime) -> dict[str, object]:
    del updated
    described: dict[str, object] = {
        "name": f"models/{model.id}",
        "displayName": model.id,
        "inputTokenLimit": model.max_input_tokens,
        "outputTokenLimit": model.max_output_tokens,
        "supportedGenerationMethods": _METHODS_BY_MODE.get(model.mode),
    }
    return {name: told for name, told in described.items() if told is not None}


_DESCRIBE = {
    "anthropic": _describe_anthropic,
    "gemini": _describe_gemini,
}
