"""Owns the answer of `GET …/models`: what the catalog prices, in the dialect's own shape. Pure."""

import json
from datetime import UTC, datetime

from llmproxy.catalog import Catalog


def model_list(catalog: Catalog, provider: str, dialect: str) -> bytes:
    """Return the JSON list of a provider's priced models (reference wire.md F.5)."""
    updated = datetime.strptime(catalog.updated, "%Y-%m-%d").replace(tzinfo=UTC)
    ids = [model.id for model in catalog.models(provider)]
    if dialect == "anthropic":
        created = updated.strftime("%Y-%m-%dT%H:%M:%SZ")
        data: list[dict[str, object]] = [
            {"type": "model", "id": name, "display_name": name, "created_at": created}
            for name in ids
        ]
        ends = {"first_id": ids[0] if ids else None, "last_id": ids[-1] if ids else None}
        return json.dumps({"data": data, "has_more": False, **ends}).encode()
    data = [
        {"id": name, "object": "model", "created": int(updated.timestamp()), "owned_by": provider}
        for name in ids
    ]
    return json.dumps({"object": "list", "data": data}).encode()
