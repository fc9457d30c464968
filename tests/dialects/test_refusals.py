"""Refusals that quote what a client sent: they can always be stored and sent."""

import json
import sqlite3

import pytest

from llmproxy.dialects.anthropic_messages import AnthropicMessages
from llmproxy.dialects.openai_chat import OpenAIChat
from llmproxy.errors import ApiError

HALF = "\ud800x"


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": HALF, "name": "t"}]},
        {"Model" + HALF: 1, "model": HALF},
        {"model": HALF},
        {"service_tier": HALF},
    ],
)
def test_half_characters_never_reach_the_database_or_the_wire(fields: dict[str, object]) -> None:
    body = json.dumps({"model": "m", **fields}).encode()
    for endpoint in (OpenAIChat(), AnthropicMessages()):
        with pytest.raises(ApiError) as caught:
            endpoint.read_request(body)
        error = caught.value
        texts = (error.message, str(error), error.param)
        assert sqlite3.connect(":memory:").execute("SELECT ?, ?, ?", texts).fetchone() == texts
        assert json.loads(error.body("req_1"))["message"] == error.message


def test_every_text_of_an_error_is_made_encodable() -> None:
    error = ApiError(400, "invalid_request", HALF, param=HALF, fields={"a": HALF, "b": 5})
    assert (error.message, error.param) == ("?x", "?x")
    assert error.fields == {"a": "?x", "b": 5}
    assert b"?x" in error.body("req_1")
