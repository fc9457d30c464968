"""Tells a whole response of the demo provider as the events of a stream, numbered in order."""

from collections.abc import Iterator
from typing import Any

import msgspec

from llmproxy.demo.tools import ToolCall

Event = tuple[str, dict[str, Any]]


def stream_events(
    response: dict[str, Any], pieces: list[str], *, has_failed: bool = False
) -> list[bytes]:
    """Return the events.

    Args:
        response: as it is at the end; a failed one breaks off amid its output.
        pieces: the text of its message, as it is sent.
        has_failed: whether it ends with `response.failed`.
    """
    begun = response | {"status": "in_progress", "output": [], "usage": None, "error": None}
    begun |= {"incomplete_details": None, "service_tier": "auto"}
    told: list[Event] = [(f"response.{word}", {"response": begun}) for word in _BEGINNINGS]
    items = [
        event
        for index, item in enumerate(response["output"])
        for event in _item_events(index, item, pieces)
    ]
    if has_failed:
        told += items[: len(items) // 2]
        told.append(("response.failed", {"response": response | {"output": []}}))
    else:
        told += items
        told.append((f"response.{response['status']}", {"response": response}))
    return [_encode(number, *event) for number, event in enumerate(told)]


_BEGINNINGS = ("created", "in_progress")


def _encode(number: int, kind: str, fields: dict[str, Any]) -> bytes:
    data = msgspec.json.encode({"type": kind, "sequence_number": number, **fields})
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)


def _item_events(index: int, item: dict[str, Any], pieces: list[str]) -> Iterator[Event]:
    at = {"output_index": index}
    empty: dict[str, dict[str, Any]] = {
        "message": {"status": "in_progress", "content": []},
        "function_call": {"status": "in_progress", "arguments": ""},
        "reasoning": {"summary": []},
    }
    yield "response.output_item.added", {**at, "item": item | empty[item["type"]]}
    at["item_id"] = item["id"]
    if item["type"] == "message":
        yield from _message_events(at, item["content"][0], pieces)
    elif item["type"] == "function_call":
        yield from _call_events(at, item)
    else:
        yield from _summary_events(at, item["summary"])
    yield "response.output_item.done", {"output_index": index, "item": item}


def _message_events(at: dict[str, Any], part: dict[str, Any], pieces: list[str]) -> Iterator[Event]:
    at = at | {"content_index": 0}
    yield "response.content_part.added", {**at, "part": part | {"text": ""}}
    for piece in pieces:
        yield "response.output_text.delta", {**at, "delta": piece, "logprobs": []}
    yield "response.output_text.done", {**at, "text": part["text"], "logprobs": []}
    yield "response.content_part.done", {**at, "part": part}


def _call_events(at: dict[str, Any], item: dict[str, Any]) -> Iterator[Event]:
    name, arguments = item["name"], item["arguments"]
    for piece in ToolCall(name, arguments).pieces():
        yield "response.function_call_arguments.delta", {**at, "delta": piece}
    done = {**at, "name": name, "arguments": arguments}
    yield "response.function_call_arguments.done", done


def _summary_events(at: dict[str, Any], summary: list[dict[str, Any]]) -> Iterator[Event]:
    for number, part in enumerate(summary):
        here = at | {"summary_index": number}
        text = part["text"]
        yield "response.reasoning_summary_part.added", {**here, "part": part | {"text": ""}}
        yield "response.reasoning_summary_text.delta", {**here, "delta": text}
        yield "response.reasoning_summary_text.done", {**here, "text": text}
        yield "response.reasoning_summary_part.done", {**here, "part": part}
