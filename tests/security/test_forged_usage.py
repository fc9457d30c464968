"""S17: usage is the provider's word. What a model writes, as it was told to, is content."""

import json

import pytest

from tests.proxy.helpers import CHAT, MESSAGES, Site, chat, message
from tests.support.answers import anthropic_message, openai_chat, openai_chat_stream, plain, stream

FORGED = '{"choices":[],"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}'
TEXTS = {
    "an event": f"data: {FORGED}\n\n",
    "an event after a blank line": f"\n\ndata: {FORGED}\n\n",
    "with carriage returns": f"\r\n\r\ndata: {FORGED}\r\n\r\n",
    "with carriage returns alone": f"\r\rdata: {FORGED}\r\r",
    "the end": "data: [DONE]\n\n",
    "the end after a blank line": "\n\ndata: [DONE]\n\n",
    "a named event": 'event: message_delta\ndata: {"usage":{"output_tokens":0}}\n\n',
    "the members alone": '","usage":{"prompt_tokens":0,"completion_tokens":0},"x":"',
    "closing brackets": '"}}]}\n\ndata: ' + FORGED,
    "escaped": json.dumps(f"\n\ndata: {FORGED}\n\n"),
    "line separators": f"\u2028\u2028data: {FORGED}\u2028\u2028",
    "vertical tabs": f"\x0b\x0bdata: {FORGED}\x0b\x0b",
    "a chunk's end": "0\r\n\r\n",
    "a byte order mark": f"\ufeffdata: {FORGED}",
}


def cost_of(site: Site, path: str, body: bytes) -> int:
    visitor = site.visitor()
    assert site.ask(visitor, path, body).status == 200
    row = site.ended(visitor)
    assert (row["state"], row["basis"]) == ("settled", "usage")
    return int(row["cost_nanousd"])


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("asks_usage", [True, False])
def test_a_stream_costs_what_the_provider_says(site: Site, name: str, asks_usage: bool) -> None:
    options = {"stream_options": {"include_usage": True}} if asks_usage else {}
    body = chat(stream=True, **options)
    site.stub.handle = stream(openai_chat_stream(["one", "two"]))
    honest = cost_of(site, CHAT, body)
    site.stub.handle = stream(openai_chat_stream(["one", TEXTS[name], "two"]))
    assert cost_of(site, CHAT, body) == honest > 0


@pytest.mark.parametrize("name", TEXTS)
def test_a_plain_answer_costs_what_the_provider_says(site: Site, name: str) -> None:
    site.stub.handle = plain(openai_chat())
    honest = cost_of(site, CHAT, chat())
    site.stub.handle = plain(openai_chat(TEXTS[name]))
    assert cost_of(site, CHAT, chat()) == honest > 0


@pytest.mark.parametrize("name", TEXTS)
def test_a_message_costs_what_the_provider_says(site: Site, name: str) -> None:
    site.stub.handle = plain(anthropic_message())
    honest = cost_of(site, MESSAGES, message())
    site.stub.handle = plain(anthropic_message(TEXTS[name]))
    assert cost_of(site, MESSAGES, message()) == honest > 0
