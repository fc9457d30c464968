"""One line for each request: what stands in it, what must never, and what it looks like."""

import io
import json
import os
import pty
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from llmproxy.clock import Clock
from llmproxy.logs import UNHELD_LINES_PER_S_MAX, RequestLog
from llmproxy.money import format_usd
from llmproxy.trace import Trace
from tests.service.helpers import CHAT, MESSAGES, Books, ask, bearer, chat_body
from tests.service.test_lifecycle import serving
from tests.support.answers import openai_chat, openai_chat_stream, openai_usage, plain, stream
from tests.support.proxy import PROVIDER_KEY, RunningProxy
from tests.support.stub_provider import StubProvider

PROMPT = "the-prompt-that-nobody-may-log"


class Log:
    """What a server has logged since this was made."""

    def __init__(self, proxy: RunningProxy) -> None:
        self._path = proxy.log
        self._seen = proxy.log.stat().st_size

    def text(self) -> str:
        return self._path.read_bytes()[self._seen :].decode()

    def requests(self, count: int = 1, within_s: float = 5.0) -> list[dict[str, Any]]:
        """The lines of requests, waiting until there are so many."""
        deadline = time.monotonic() + within_s
        while True:
            lines = [json.loads(line) for line in self.text().splitlines(keepends=False)]
            found = [line for line in lines if line["message"] == "request"]
            if len(found) >= count or time.monotonic() > deadline:
                assert len(found) == count
                return found
            time.sleep(0.01)


@pytest.fixture
def log(proxy: RunningProxy) -> Log:
    time.sleep(1.01)  # a second of its own: lines of refusals are limited by the second
    return Log(proxy)


def test_a_settled_request_leaves_what_its_row_says(
    proxy: RunningProxy, books: Books, stub: StubProvider, log: Log
) -> None:
    usage = openai_usage(1000, 200, cached=400)
    stub.handle = stream(openai_chat_stream(["a", "b"], usage=usage))
    name, key = books.user()
    body = chat_body(stream=True, stream_options={"include_usage": True})
    answered = ask(proxy.port, "POST", CHAT, body, bearer(key))
    (line,) = log.requests()
    books.settled_wallet(name)
    (row,) = books.rows(name)
    assert line["request_id"] == f"req_{row['id'].hex()}" == answered.request_id
    expected = {
        "user": name,
        "key": "test",
        "provider": "openai",
        "endpoint": "chat/completions",
        "model": "gpt-4o",
        "stream": True,
        "status": 200,
        "code": "",
        "upstream_status": 200,
        "attempts": 1,
        "state": "settled",
        "basis": "usage",
        "tokens_in": 1000,
        "tokens_out": 200,
        "cost_usd": format_usd(row["cost_nanousd"]),
        "bytes_in": len(json.dumps(body)),
        "bytes_out": len(answered.body),
    }
    assert {name: line[name] for name in expected} == expected
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["at"])
    assert 0 <= line["ttfb_ms"] <= line["duration_ms"] < 5000


def test_refusals_are_logged_with_their_code(
    proxy: RunningProxy, books: Books, stub: StubProvider, log: Log
) -> None:
    name, key = books.user("0.000001")
    cases = [
        (CHAT, chat_body(), key, 402, "insufficient_credit"),
        (CHAT, chat_body(model="no-such-model"), key, 400, "unknown_model_pricing"),
        (CHAT, chat_body(), "llmp_wrong", 401, "invalid_api_key"),
        ("/v1/openai/no/such/path", chat_body(), key, 400, "endpoint_not_metered"),
        ("/v1/nobody/here", chat_body(), key, 404, "unknown_path"),
    ]
    for path, body, given, *_ in cases:
        ask(proxy.port, "POST", path, body, bearer(given))
    lines = log.requests(len(cases))
    assert [(line["status"], line["code"]) for line in lines] == [tuple(c[3:]) for c in cases]
    assert {(line["state"], line["basis"], line["cost_usd"]) for line in lines} == {
        ("refused", "none", "0.00")
    }
    assert [line["user"] for line in lines] == [name, name, "", "", ""]
    assert lines[1]["model"] == "no-such-model"


def test_an_upstream_failure_is_logged_as_released(
    proxy: RunningProxy, books: Books, stub: StubProvider, log: Log
) -> None:
    stub.handle = plain(b'{"error":{"message":"no"}}', status=400)
    _, key = books.user()
    ask(proxy.port, "POST", CHAT, chat_body(), bearer(key))
    (line,) = log.requests()
    assert (line["status"], line["upstream_status"], line["state"]) == (400, 400, "released")
    assert (line["attempts"], line["cost_usd"]) == (1, "0.00")


def test_no_secret_no_prompt_no_header_and_no_query_is_logged(
    proxy: RunningProxy, books: Books, stub: StubProvider, log: Log
) -> None:
    _, key = books.user()
    body = chat_body(messages=[{"role": "user", "content": PROMPT}])
    headers = bearer(key) | {"x-custom": "a-header-value", "user-agent": "an-agent"}
    ask(proxy.port, "POST", f"{CHAT}?key={key}&other=a-query", body, headers)
    ask(proxy.port, "POST", f"{MESSAGES}?key=llmp_wrong", body, {"x-api-key": "llmp_wrong"})
    log.requests(2)
    said = log.text()
    secrets = (key, PROVIDER_KEY, PROMPT, "a-header-value", "an-agent", "a-query", "llmp_wrong")
    assert [secret for secret in secrets if secret in said] == []


def test_lines_of_refusals_are_limited_and_the_rest_is_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class SteppingClock(Clock):
        at_ms = 1_764_000_000_000

        @override
        def now_ms(self) -> int:
            return self.at_ms

    clock, out = SteppingClock(), io.BytesIO()
    log = RequestLog(out, clock, is_terminal=False)
    refused, held = Trace(), Trace()
    refused.status, held.state = 401, "settled"
    for _ in range(UNHELD_LINES_PER_S_MAX + 7):
        log.write(refused)
        log.write(held)
    assert not caplog.messages
    clock.at_ms += 1000
    log.write(refused)
    assert caplog.messages == ["7 more refused or free requests were not logged"]
    log.flush()
    states = [json.loads(line)["state"] for line in out.getvalue().splitlines()]
    assert states.count("refused") == UNHELD_LINES_PER_S_MAX + 1
    assert states.count("settled") == UNHELD_LINES_PER_S_MAX + 7


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    with serving(tmp_path, {"LLMPROXY_LOG_REQUESTS": "false"}) as site:
        site.stub.handle = plain(openai_chat())
        _, key = site.books.user()
        log = Log(site.proxy)
        assert ask(site.proxy.port, "POST", CHAT, chat_body(), bearer(key)).status == 200
        assert site.proxy.stop() == 0
        assert "gpt-4o" not in log.text()


def test_on_a_terminal_a_line_is_short_text() -> None:
    reading, writing = pty.openpty()
    said = bytearray()
    reader = threading.Thread(target=lambda: said.extend(os.read(reading, 10_000)))
    reader.start()
    trace = Trace()
    trace.provider, trace.endpoint, trace.user = "openai", "chat/completions", "ann"
    trace.model, trace.status, trace.duration_s = "evil\x1b[2Jmodel", 400, 1.234
    trace.request_id, trace.code = "req_1", "unknown_model_pricing"
    with os.fdopen(writing, "wb", buffering=0) as out:
        RequestLog(out, Clock(), is_terminal=True).write(trace)
        reader.join(5)
    os.close(reading)
    line = said.decode()
    assert re.match(r"\d\d:\d\d:\d\d 400   1\.23 s ann        openai evil\?\[2Jmodel ", line)
    assert line.rstrip().endswith(" unknown_model_pricing req_1")
    assert "tokens" not in line


def test_a_log_that_nobody_reads_stops_no_request() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb", buffering=0) as out:
        log = RequestLog(out, Clock(), is_terminal=False)
        log.write(Trace())
        log.flush()
