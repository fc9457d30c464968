"""Owns how the server logs: one line an event on stderr, never a secret, a prompt or an answer."""

import asyncio
import json
import logging
import sys
import time
from datetime import UTC, datetime
from typing import BinaryIO

import msgspec
from typing_extensions import override

from llmproxy.clock import Clock
from llmproxy.money import display_usd, format_usd
from llmproxy.trace import Trace

UNHELD_LINES_PER_S_MAX = 20
"""As with the rows of such requests: they cost the client nothing, and must cost us as little."""
FLUSH_INTERVAL_S = 0.1
WAITING_LINES_MAX = 200
MODEL_CHARS_MAX = 100
SHORT_ID_CHARS = 20
"""Of a request id on a terminal: `llmproxy explain` takes the beginning of one."""
UNLOGGED_STATUS = 426
"""Clients ask for WebSocket first and go on with HTTP: that is not worth a line each time."""

_log = logging.getLogger("llmproxy.requests")


_ENCODER = msgspec.json.Encoder()


class _JsonLines(logging.Formatter):
    """One JSON object a line, for machines that collect logs."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, tz=UTC)
        line: dict[str, object] = {
            "at": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return _json(line).decode()


class _TextLines(logging.Formatter):
    """Short lines for a person.

    What a provider said must not steer their terminal, nor look like a line of ours.
    """

    @override
    def formatMessage(self, record: logging.LogRecord) -> str:
        return _printable(super().formatMessage(record))

    @override
    def format(self, record: logging.LogRecord) -> str:
        lines = super().format(record).split("\n")  # a traceback has several
        return "\n".join(_printable(line) for line in lines)


def _json(line: dict[str, object]) -> bytes:
    """Return a line as JSON; what a terminal would obey is written with escapes."""
    encoded = _ENCODER.encode(line)
    if encoded.isascii():
        return encoded
    text = encoded.decode()
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text).encode()


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def set_up_logs(level: str) -> None:
    """Send our log to stderr: plain lines on a terminal, JSON lines elsewhere."""
    handler = logging.StreamHandler(sys.stderr)
    plain = _TextLines("%(asctime)s %(levelname)-8s %(message)s", datefmt="%H:%M:%S")
    handler.setFormatter(plain if sys.stderr.isatty() else _JsonLines())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("llmproxy").setLevel(level.upper())


def say(text: str) -> None:
    """Write one line of our own, whatever the level: that the server has started, and where."""
    record = logging.LogRecord("llmproxy.server", logging.INFO, "", 0, text, None, None)
    line = text if sys.stderr.isatty() else _JsonLines().format(record)
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


class RequestLog:
    """Writes one line for each request at its end: at once for people, for machines by the tenth.

    Not by way of `logging`, whose records and formatters would cost ten times as much; and its
    level does not matter here: the setting `log_requests` does.
    """

    def __init__(self, out: BinaryIO, clock: Clock, *, is_terminal: bool) -> None:
        """Take where lines go: short text for a person at a terminal, JSON for machines."""
        self._out = out
        self._clock = clock
        self._is_terminal = is_terminal
        self._second = 0
        self._second_text = ""
        self._unheld = 0
        self._waiting: list[bytes] = []

    async def run(self) -> None:
        """Write what waits ten times a second, until cancelled; `flush` writes the rest."""
        while True:
            await asyncio.sleep(FLUSH_INTERVAL_S)
            self.flush()

    def write(self, trace: Trace) -> None:
        """Write the line of a request that has ended."""
        if trace.status == UNLOGGED_STATUS:
            return
        now_ms = self._clock.now_ms()
        if now_ms // 1000 != self._second:
            self._begin_second(now_ms)
        if not trace.was_admitted:
            self._unheld += 1
            if self._unheld > UNHELD_LINES_PER_S_MAX:
                return
        if self._is_terminal:
            self._waiting.append(_text_line(trace, self._second_text))
            self.flush()
            return
        self._waiting.append(_json_line(trace, f"{self._second_text}.{now_ms % 1000:03d}Z"))
        if len(self._waiting) >= WAITING_LINES_MAX:
            self.flush()

    def flush(self) -> None:
        """Write the lines that wait."""
        if not self._waiting:
            return
        lines, self._waiting = self._waiting, []
        try:
            self._out.write(b"".join(lines))
            self._out.flush()
        except OSError:
            pass  # whoever reads the log has gone or is full; requests go on

    def _begin_second(self, now_ms: int) -> None:
        """Write the time once a second, and how many lines were left out in the last one."""
        self._second = now_ms // 1000
        if self._is_terminal:
            self._second_text = time.strftime("%H:%M:%S", time.localtime(self._second))
        else:
            self._second_text = f"{datetime.fromtimestamp(self._second, tz=UTC):%Y-%m-%dT%H:%M:%S}"
        left_out, self._unheld = self._unheld - UNHELD_LINES_PER_S_MAX, 0
        if left_out > 0:
            _log.warning("%d more refused or free requests were not logged", left_out)


def _json_line(trace: Trace, at: str) -> bytes:
    tokens = trace.tokens()
    line = {
        "at": at,
        "level": "info",
        "logger": "llmproxy.requests",
        "message": "request",
        "request_id": trace.request_id,
        "user": trace.user,
        "key": trace.api_key,
        "provider": trace.provider,
        "endpoint": trace.endpoint,
        "model": trace.model[:MODEL_CHARS_MAX],
        "stream": trace.is_stream,
        "status": trace.status,
        "code": trace.code,
        "upstream_status": trace.upstream_status,
        "attempts": trace.attempts,
        "state": trace.final_state,
        "basis": trace.basis,
        "tokens_in": _input_tokens(tokens),
        "tokens_out": tokens.get("output", 0),
        "cost_usd": format_usd(trace.cost_nanousd),
        "ttfb_ms": None if trace.ttfb_s is None else round(trace.ttfb_s * 1000),
        "duration_ms": round(trace.duration_s * 1000),
        "bytes_in": trace.bytes_in,
        "bytes_out": trace.bytes_out,
    }
    return _json(line) + b"\n"


def _text_line(trace: Trace, at: str) -> bytes:
    """Return a line that fits 80 columns unless names are long; what went wrong stands behind."""
    tokens = trace.tokens()
    what = f"{trace.provider} {trace.model or trace.endpoint}".strip()
    parts = [
        at,
        f"{trace.status or '-':>3}",
        f"{trace.duration_s:6.2f} s",
        f"{trace.user or '-':<10}",
        f"{what[:MODEL_CHARS_MAX]:<24}",
    ]
    if trace.attempts:
        parts.append(f"{_input_tokens(tokens)}+{tokens.get('output', 0)} tokens")
        parts.append(f"${display_usd(trace.cost_nanousd)}")
    if trace.basis in {"estimate", "hold"}:
        parts.append(f"({trace.basis})")
    if trace.code or trace.status >= 400 or not trace.status:
        parts += [trace.code, trace.request_id[:SHORT_ID_CHARS]]
    text = " ".join(part for part in parts if part)
    # A model that does not exist is the client's text: it must not steer the terminal.
    return _printable(text).encode(errors="replace") + b"\n"


def _input_tokens(tokens: dict[str, int]) -> int:
    """Return all input tokens, cached or not."""
    return sum(tokens.values()) - tokens.get("output", 0)
