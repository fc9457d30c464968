"""What goes wrong on demand: a marker in a request makes the demo provider misbehave.

The marker is `[demo:NAME]`, anywhere in the request's body; the last one counts. So any client can
set it off, with nothing but its prompt. `MISHAPS` has the names.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from llmproxy.demo.replies import Answer, Request

MISHAPS = {
    "slow": "begins after 2 s, then half a second between events",
    "break": "breaks off half-way, without an end",
    "error-event": "an error event half-way in a stream; a plain request is answered 500",
    "rate-limit": "429 with retry-after: 2",
    "server-error": "500",
    "overloaded": "overloaded: OpenAI's 503, Anthropic's 529",
    "no-usage": "the answer reports no usage",
    "absurd-usage": "the answer reports usage that cannot be true",
    "incomplete": "ended half-way by a content filter",
    "failed": "a response that ends as failed; other endpoints do as with error-event",
}

SLOW_DELAY_S = 2.0
SLOW_GAP_S = 0.5
RETRY_AFTER_S = 2
ABSURD_TOKENS = 10**15
_USAGES = ("usage", "usageMetadata")

ErrorAnswer = Callable[[Request, int, str], Answer]


def apply(request: Request, answer: Answer, error: ErrorAnswer, *, is_anthropic: bool) -> Answer:
    """Return the answer as the request's mishap makes it; refusals stay as they are.

    Args:
        request: the request; `mishap` names what is to go wrong.
        answer: what would be answered.
        error: makes an error answer in the dialect.
        is_anthropic: whether it is Anthropic's dialect.
    """
    name = request.mishap
    if answer.status != 200 or not name:
        return answer
    statuses = {"rate-limit": 429, "server-error": 500, "overloaded": 529 if is_anthropic else 503}
    if name in statuses:
        made = error(request, statuses[name], f"The demo provider was told: {name}.")
        waits = (("retry-after", str(RETRY_AFTER_S)),) if name == "rate-limit" else ()
        return msgspec.structs.replace(made, headers=made.headers + waits)
    if name == "failed" and request.path == "/v1/responses":
        return answer
    if name in {"error-event", "failed"} and answer.events is None:
        return error(request, 500, "The demo provider was told to fail.")
    return _changed(request, answer, name)


def _changed(request: Request, answer: Answer, name: str) -> Answer:
    replace = msgspec.structs.replace
    events = answer.events or ()
    half = events[: max(len(events) // 2, 1)]
    if name == "slow":
        return replace(answer, delay_s=SLOW_DELAY_S, gap_s=SLOW_GAP_S)
    if name == "break":
        shown = None if answer.events is None else half
        return replace(answer, events=shown, breaks_off=True)
    if name in {"error-event", "failed"}:
        return replace(answer, events=(*half, _error_event(request, len(half))))
    if name in {"no-usage", "absurd-usage"} and answer.media_type == "application/json":
        edit = _without_usage if name == "no-usage" else _with_absurd_usage
        if answer.events is None:
            return replace(answer, body=msgspec.json.encode(edit(msgspec.json.decode(answer.body))))
        edited = [_edit_event(event, edit) for event in events]
        return replace(answer, events=tuple(event for event in edited if event))
    return answer


def _error_event(request: Request, number: int) -> bytes:
    message = "The demo provider was told to fail."
    if request.path.startswith("/v1/messages"):
        inner = {"type": "overloaded_error", "message": message}
        data = msgspec.json.encode({"type": "error", "error": inner})
        return b"event: error\ndata: %b\n\n" % data
    if request.path.startswith("/v1beta/"):
        error = {"code": 503, "message": message, "status": "UNAVAILABLE"}
        return b"data: %b\r\n\r\n" % msgspec.json.encode({"error": error})
    told = {"message": message, "param": None, "code": "server_error"}
    if request.path == "/v1/responses":
        data = msgspec.json.encode({"type": "error", "sequence_number": number, **told})
        return b"event: error\ndata: %b\n\n" % data
    return b"data: %b\n\n" % msgspec.json.encode({"error": {"type": "server_error", **told}})


def _edit_event(event: bytes, edit: Callable[[Any], Any]) -> bytes:
    """Return an event with its data edited; empty where nothing is left to say."""
    head, _, data = event.partition(b"data: ")
    if data.strip() == b"[DONE]":
        return event
    edited = edit(msgspec.json.decode(data))
    if edited.get("choices") == [] and not edited.get("usage"):
        return b""
    return head + b"data: " + msgspec.json.encode(edited) + b"\n\n"


def _without_usage(answer: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in answer.items() if key not in _USAGES}
    for key in ("message", "response"):
        if isinstance(inner := kept.get(key), dict):
            kept[key] = _without_usage(inner)
    return kept


def _with_absurd_usage(answer: dict[str, Any]) -> dict[str, Any]:
    changed = dict(answer)
    for key in _USAGES:
        if isinstance(usage := changed.get(key), dict):
            changed[key] = _absurd(usage)
    for key in ("message", "response"):
        if isinstance(inner := changed.get(key), dict):
            changed[key] = _with_absurd_usage(inner)
    return changed


def _absurd(usage: dict[str, Any]) -> dict[str, Any]:
    made = {key: ABSURD_TOKENS if isinstance(v, int) else v for key, v in usage.items()}
    return {key: _absurd(v) if isinstance(v, dict) else v for key, v in made.items()}
