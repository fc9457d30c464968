"""A provider that keeps responses as OpenAI does: for the key that made them, read again each time.

It is the judge of where a request that goes on from a response may be sent, and of what it costs.
"""

import json
from typing import Any

from tests.support.answers import named_event
from tests.support.stub_provider import Out, SeenRequest

RESPONSES = "/v1/openai/responses"
OUTPUT_TOKENS = 40
NOT_FOUND = {
    "error": {
        "message": "Previous response with id 'x' not found.",
        "type": "invalid_request_error",
        "param": "previous_response_id",
        "code": "previous_response_not_found",
    }
}


class KeepingProvider:
    """Answers `responses`; what it is asked to keep it knows again, by key and id.

    Attributes:
        fresh_tokens: what the input in a body counts.
        refuses: keys that it does not know.
        keeps_nothing: it is an account that says `store: false` whatever it was asked for.
        is_silent: it does not say whether it keeps an answer, as some followers of OpenAI.
    """

    def __init__(self) -> None:
        self.fresh_tokens = 25
        self.refuses: set[str] = set()
        self.keeps_nothing = False
        self.is_silent = False
        self._kept: dict[tuple[str, str], int] = {}
        self._made = 0

    async def handle(self, request: SeenRequest, out: Out) -> None:
        asked = request.json()
        key = key_of(request)
        if key in self.refuses:
            error = {"message": "Incorrect API key provided", "code": "invalid_api_key"}
            await out.json(401, {"error": error})
            return
        context = 0
        if previous := asked.get("previous_response_id"):
            if (key, previous) not in self._kept:
                await out.json(400, NOT_FOUND)
                return
            context = self._kept[key, previous]
        if request.target.endswith(b"/input_tokens"):
            await out.json(200, {"input_tokens": context + self.fresh_tokens})
            return
        answer = self._answer(asked, key, context + self.fresh_tokens)
        if asked.get("stream"):
            created = {**answer, "status": "in_progress", "usage": None, "output": []}
            await out.sse(
                [
                    named_event("response.created", response=created),
                    named_event("response.output_text.delta", delta="Hello"),
                    named_event("response.completed", response=answer),
                ]
            )
        else:
            await out.json(200, answer)

    def _answer(self, asked: dict[str, Any], key: str, input_tokens: int) -> dict[str, Any]:
        self._made += 1
        keeps = asked.get("store") is not False and not self.keeps_nothing
        response_id = f"resp_{self._made:08}"
        total = input_tokens + OUTPUT_TOKENS
        if keeps:
            self._kept[key, response_id] = total
        usage = {"input_tokens": input_tokens, "output_tokens": OUTPUT_TOKENS}
        text = {"type": "output_text", "text": "Hello", "annotations": []}
        return {
            "id": response_id,
            "object": "response",
            "status": "completed",
            "model": asked["model"],
            **({} if self.is_silent else {"store": keeps}),
            "error": None,
            "output": [{"type": "message", "role": "assistant", "content": [text]}],
            "usage": {**usage, "total_tokens": total},
        }


def key_of(request: SeenRequest) -> str:
    """The provider key that a request came with."""
    return (request.header("authorization") or b"").removeprefix(b"Bearer ").decode()


def body(**fields: object) -> bytes:
    """A request of at most 50 tokens of output; gpt-4o costs 2,500 and 10,000 nano-USD a token."""
    asked = {"model": "gpt-4o", "max_output_tokens": 50, "input": "hi", **fields}
    return json.dumps(asked, separators=(",", ":")).encode()
