"""The demo's client: sends requests as the SDKs do, and reads what it is given as they do.

It knows nothing of the proxy's insides, so that what it reads can be held against the ledger.
"""

import http.client
import json
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from llmproxy.demo.replies import count_tokens

TIMEOUT_S = 20
ANSWER_BYTES_MAX = 1024 * 1024


class Ask(msgspec.Struct, frozen=True):
    """One request to be sent.

    Args:
        title: what it shows.
        path: where it goes, such as `/v1/openai/chat/completions`.
        model: the model's id.
        prompt: the user's words.
        options: further fields of the body.
        hidden_output_tokens: output that is billed but not in the text: reasoning.
    """

    title: str
    path: str
    model: str
    prompt: str
    options: dict[str, Any] = {}
    hidden_output_tokens: int = 0

    @property
    def provider(self) -> str:
        """The provider that the path names."""
        return self.path.split("/")[2]

    @property
    def is_stream(self) -> bool:
        """Whether the answer comes in events."""
        return bool(self.options.get("stream"))

    def body(self) -> bytes:
        """Return the JSON to send."""
        messages = [{"role": "user", "content": self.prompt}]
        return json.dumps({"model": self.model, "messages": messages, **self.options}).encode()


class Got(msgspec.Struct):
    """What came back: `usage` as the provider reported it, `error` of a refusal."""

    status: int
    request_id: str
    cost_usd: str | None
    text: str = ""
    usage: dict[str, Any] = {}
    error: dict[str, Any] = {}

    def tokens(self, ask: Ask) -> dict[str, int]:
        """Return the tokens of each class, as the client can know them.

        A stream that was not asked for usage shows none; then they are counted by the demo
        provider's own rule.
        """
        usage = self.usage
        if not usage:
            prompt = count_tokens(len(f"user: {ask.prompt}\n"))
            return {
                "input": prompt,
                "output": count_tokens(len(self.text)) + ask.hidden_output_tokens,
            }
        if "prompt_tokens" in usage:
            cached = usage["prompt_tokens_details"]["cached_tokens"]
            fresh = usage["prompt_tokens"] - cached
            return {"input": fresh, "cache_read": cached, "output": usage["completion_tokens"]}
        return {
            "input": usage["input_tokens"],
            "cache_read": usage["cache_read_input_tokens"],
            "cache_write": usage["cache_creation_input_tokens"],
            "output": usage["output_tokens"],
        }


def send(port: int, api_key: str, ask: Ask, on_text: Callable[[str], None]) -> Got:
    """Send one request to the proxy on loopback; tell each piece of the answer as it arrives.

    Raises:
        OSError, http.client.HTTPException: the connection failed.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("POST", ask.path, ask.body(), _headers(ask, api_key))
        response = connection.getresponse()
        got = Got(
            response.status,
            response.getheader("x-llmproxy-request-id", ""),
            response.getheader("x-llmproxy-cost-usd"),
        )
        if response.status != 200:
            got.error = json.loads(response.read(ANSWER_BYTES_MAX))["error"]
        elif ask.is_stream:
            _read_stream(response, got, on_text)
        else:
            _read_plain(json.loads(response.read(ANSWER_BYTES_MAX)), got)
            on_text(got.text)
        return got
    finally:
        connection.close()


def _headers(ask: Ask, api_key: str) -> dict[str, str]:
    if ask.provider == "anthropic":
        return {
            "x-api-key": api_key,
            "anthropic-version": "2023-06-01",
            "content-type": "application/json",
        }
    return {"authorization": f"Bearer {api_key}", "content-type": "application/json"}


def _read_plain(answer: dict[str, Any], got: Got) -> None:
    got.usage = answer["usage"]
    if "choices" in answer:
        got.text = answer["choices"][0]["message"]["content"]
    else:
        got.text = "".join(block["text"] for block in answer["content"])


def _read_stream(
    response: http.client.HTTPResponse, got: Got, on_text: Callable[[str], None]
) -> None:
    for event in _events(response):
        if "error" in event:
            got.error = event["error"]
        got.usage |= _stream_usage(event)
        piece = _piece(event)
        if piece:
            got.text += piece
            on_text(piece)


def _events(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """Yield the JSON of each event; every event here has one `data` line."""
    while line := response.readline(ANSWER_BYTES_MAX):
        data = line.removeprefix(b"data:").strip()
        if line.startswith(b"data:") and data != b"[DONE]":
            yield json.loads(data)


def _stream_usage(event: dict[str, Any]) -> dict[str, Any]:
    message = event.get("message")
    found = event.get("usage") or (message.get("usage") if isinstance(message, dict) else None)
    return found or {}


def _piece(event: dict[str, Any]) -> str:
    if event.get("choices"):
        return event["choices"][0]["delta"].get("content") or ""
    delta = event.get("delta")
    return delta.get("text", "") if isinstance(delta, dict) else ""
