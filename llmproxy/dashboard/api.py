"""Owns the page of our own endpoints for scripts: the OpenAPI description, made readable.

Rendered here, without a script of somebody else's: the description is small, and ours.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, NamedTuple

from litestar import HttpMethod, Request, Response, route
from litestar.handlers import HTTPRouteHandler

from llmproxy.dashboard.guide import page_for_all
from llmproxy.dashboard.site import Site

Describe = Callable[[], Awaitable[dict[str, Any]]]
"""Returns an OpenAPI 3.1 document."""
Schema = Mapping[str, Any]


class Field(NamedTuple):
    """A parameter of a request, or a field of an answer."""

    name: str
    type: str
    text: str


class Operation(NamedTuple):
    """One method of one path."""

    id: str
    method: str
    path: str
    summary: str
    is_public: bool
    """It takes no API key."""
    parameters: list[Field]
    fields: list[Field]
    """Those of the answer where it is JSON."""
    statuses: list[Field]


def api_route(site: Site, describe: Describe) -> HTTPRouteHandler:
    """Return the route of this page; it is open to all, as the description is."""

    @route("/api", http_method=[HttpMethod.GET, HttpMethod.HEAD])
    async def api(request: Request[Any, Any, Any]) -> Response[bytes]:
        values = {"page": "guide", "operations": read_operations(await describe())}
        return await page_for_all(site, request, "api.html", values)

    return api


def read_operations(document: Schema) -> list[Operation]:
    """Return the operations of an OpenAPI document, those with an API key first."""
    schemas = document.get("components", {}).get("schemas", {})
    found = [
        _operation(path, method, described, schemas)
        for path, item in document["paths"].items()
        for method, described in item.items()
    ]
    return sorted(found, key=lambda operation: operation.is_public)


def _operation(path: str, method: str, described: Schema, schemas: Schema) -> Operation:
    responses = described.get("responses", {})
    return Operation(
        id=described["operationId"],
        method=method.upper(),
        path=path,
        summary=described.get("summary", ""),
        is_public=not described.get("security"),
        parameters=[
            Field(each["name"], _type(each["schema"], schemas), _plain(each.get("description", "")))
            for each in described.get("parameters", ())
        ],
        fields=list(_fields(_answer(responses), schemas)),
        statuses=[
            Field(status, "", each["description"])
            for status, each in sorted(responses.items())
            if not status.startswith("2")
        ],
    )


def _plain(text: str) -> str:
    """Return Markdown of one line as the text that it shows."""
    return text.replace("`", "")


def _answer(responses: Schema) -> Schema:
    """Return the schema of the JSON that is answered when all is well; empty when none is."""
    content = responses.get("200", {}).get("content", {})
    schema: Schema = content.get("application/json", {}).get("schema", {})
    return schema


def _fields(schema: Schema, schemas: Schema, prefix: str = "") -> Iterator[Field]:
    """Yield the fields of an object, those of objects within it under dotted names."""
    schema = _resolved(schema, schemas)
    for name, each in schema.get("properties", {}).items():
        inner = _resolved(each, schemas)
        items = _resolved(inner.get("items", {}), schemas)
        yield Field(prefix + name, _type(each, schemas), _plain(inner.get("description", "")))
        if "properties" in inner:
            yield from _fields(inner, schemas, f"{prefix}{name}.")
        elif "properties" in items:
            yield from _fields(items, schemas, f"{prefix}{name}[].")


def _resolved(schema: Schema, schemas: Schema) -> Schema:
    """Return what a reference stands for; of an object or null, the object."""
    if "$ref" in schema:
        return _resolved(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    choices = [each for each in schema.get("oneOf", ()) if each.get("type") != "null"]
    return _resolved(choices[0], schemas) if len(choices) == 1 else schema


def _type(schema: Schema, schemas: Schema) -> str:
    """Return a type in words, such as `string or null`."""
    if "oneOf" in schema:
        return " or ".join(_type(each, schemas) for each in schema["oneOf"])
    schema = _resolved(schema, schemas)
    if "enum" in schema:
        return " or ".join(f"“{each}”" if each is not None else "null" for each in schema["enum"])
    if "const" in schema:
        return f"“{schema['const']}”"
    words: list[str] = [schema.get("type", "any")]
    if schema.get("type") == "array":
        words.append(f"of {_type(schema.get('items', {}), schemas)}")
    if "minimum" in schema and "maximum" in schema:
        words.append(f"{schema['minimum']:g} to {schema['maximum']:g}")
    if "default" in schema:
        words.append(f"(default {schema['default']})")
    return " ".join(words)
