"""Requests to Gemini's own API, and what is read of them, for the tests of its dialect."""

import json

from llmproxy.dialects.base import RequestFacts
from llmproxy.dialects.gemini_contents import GENERATE, STREAM, GeminiContents
from llmproxy.errors import ApiError
from tests.support.reading import refusal_of

MODEL = "gemini-2.5-flash"
CONTENTS = GeminiContents(GENERATE, MODEL)
STREAMED = GeminiContents(STREAM, MODEL)
HI = [{"role": "user", "parts": [{"text": "hi"}]}]


def encode(**fields: object) -> bytes:
    return json.dumps({"contents": HI, **fields}).encode()


def facts(**fields: object) -> RequestFacts:
    return CONTENTS.read_request(encode(**fields))


def with_part(part: object) -> RequestFacts:
    return facts(contents=[{"parts": [{"text": "look"}, part]}])


def refused(**fields: object) -> ApiError:
    return refusal_of(CONTENTS, encode(**fields), "gemini")
