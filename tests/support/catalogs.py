"""Catalogs for tests: documents, what is read of them, and what they are refused for."""

import json
from typing import Any

import pytest

from llmproxy.catalog import Catalog, Model
from llmproxy.catalog_parser import parse_catalog
from llmproxy.errors import CatalogError

USD = 10**9  # one dollar in nano-USD


def entry(**fields: object) -> dict[str, Any]:
    return {"in_price": "2.5", "out_price": "10", **fields}


def document(models: dict[str, Any], **fields: object) -> dict[str, Any]:
    head = {"schema": 1, "currency": "USD", "unit": "per 1M tokens", "updated": "2026-11-23"}
    return {**head, "sources": {"hand": "1"}, "models": models, **fields}


def parse(models: dict[str, Any], **fields: object) -> Catalog:
    return parse_catalog(json.dumps(document(models, **fields)).encode(), "mine.json")


def one(provider: str = "openai", **fields: object) -> Model:
    model = parse({f"{provider}/m": entry(**fields)}).find(provider, "m")
    assert model is not None
    return model


def refusal(data: bytes) -> str:
    with pytest.raises(CatalogError) as caught:
        parse_catalog(data, "mine.json")
    return str(caught.value)


def refusal_of(**fields: object) -> str:
    return refusal(json.dumps(document({"openai/m": entry(**fields)})).encode())
