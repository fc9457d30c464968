"""Answers that are errors: nothing is charged, whatever their number and shape."""

from collections.abc import Iterator

from tests.faults.cell import Case, End, Handler, Stage, View
from tests.faults.dialects import Dialect, compact
from tests.faults.expect import JSON_HEAD, released, unreachable
from tests.support.proxy import PROVIDER_KEY
from tests.support.stub_provider import Headers, Out, SeenRequest

PASSED_ON = {
    400: "invalid_request_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    422: "invalid_request_error",
    500: "api_error",
    502: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
RETRY_AFTER = {
    "in seconds": ("7", b"7"),
    "a date": ("Wed, 21 Oct 2037 07:28:00 GMT", b"60"),  # the longest that is told on
    "a date that is past": ("Sun, 06 Nov 1994 08:49:37 GMT", b"5"),  # it tells nothing
    "a date without an end": ("Wed, 21 Oct 2037 07:28", b"60"),
    "no date": ("Wed, 32 Oct 2037 07:28:00 GMT", b"5"),
    "negative": ("-3", b"5"),
    "huge": ("86400", b"60"),
    "a fraction": ("0.2", b"1"),
    "no number": ("soon", b"5"),
    "not there": ("", b"5"),
}
HTML_HEAD = [("content-type", "text/html")]
PAGE = b"<html><body>" + b"<p>Bad gateway</p>" * 120_000 + b"</body></html>"
"""2 MB."""


def error_body(dialect: Dialect, kind: str, message: str, code: str | None = None) -> bytes:
    """An error as the provider writes it."""
    error = {"type": kind, "message": message}
    if dialect.family == "anthropic":
        return compact({"type": "error", "error": error, "request_id": "req_011STUB"})
    return compact({"error": {**error, "param": None, "code": code}})


def answered(status: int, body: bytes, headers: Headers = JSON_HEAD) -> Handler:
    """Answer with this, its head first."""

    async def handle(request: SeenRequest, out: Out, stage: Stage) -> None:
        await out.head(status, headers, length=len(body))
        await stage.fault()
        await out.send(body)

    return handle


def cases(dialect: Dialect, *, is_stream: bool) -> Iterator[Case]:
    """All faults of this page; they are the same for streams, whose errors come plain."""
    yield from _passed_on(dialect)
    yield from _about_the_key(dialect)
    yield from _broken(dialect)
    for status in (301, 302, 307, 308):
        head = [*JSON_HEAD, ("location", "http://127.0.0.1:9/elsewhere")]
        yield Case(
            f"redirect {status}",
            answered(status, b"{}", head),
            unreachable(),
            released(status, r"Proxy error: \S+ answered with a redirect\. "),
            has_middle=True,
            view_headers=(b"location",),
        )
    for status in (600, 999):
        yield Case(
            f"status {status}",
            answered(status, b"{}"),
            unreachable(),
            released(status, rf"Proxy error: \S+ answered with status {status}\. "),
            has_middle=True,
        )


def _passed_on(dialect: Dialect) -> Iterator[Case]:
    for status, kind in PASSED_ON.items():
        body = error_body(dialect, kind, "What you sent cannot be served.")
        yield Case(
            f"status {status}",
            answered(status, body),
            View(status, End.CLEAN, body),
            released(status, f"the provider answered {status}$"),
            has_middle=True,
        )
    echo = error_body(dialect, "invalid_request_error", f"Bad header: Bearer {PROVIDER_KEY}")
    yield Case(
        "400 that echoes the key",
        answered(400, echo, [*JSON_HEAD, ("x-echo", PROVIDER_KEY)]),
        View(400, End.CLEAN, echo.replace(PROVIDER_KEY.encode(), b"***")),
        released(400, "the provider answered 400$"),
        has_middle=True,
        view_headers=(b"x-echo",),
    )
    for status in (500, 503):
        yield Case(
            f"{status} with a page of 2 MB",
            answered(status, PAGE, HTML_HEAD),
            View(status, End.CLEAN, PAGE),
            released(status, f"the provider answered {status}$"),
            has_middle=True,
        )
    yield Case(
        "500 without a body",
        answered(500, b""),
        View(500, End.CLEAN, b""),
        released(500, "the provider answered 500$"),
        has_middle=True,
    )


def _about_the_key(dialect: Dialect) -> Iterator[Case]:
    """No other key is left: the operator's trouble is told in our words."""
    out_of_keys = View(503, End.OUR_ERROR, code="no_active_provider_keys", should_retry=b"false")
    secret = f"Incorrect API key provided: {PROVIDER_KEY}"
    refused = {
        "401": (401, error_body(dialect, "authentication_error", secret, "invalid_api_key")),
        "402": (402, error_body(dialect, "billing_error", "Insufficient Balance")),
        "429 for want of quota": (
            429,
            error_body(
                dialect, "insufficient_quota", "You exceeded your quota.", "insufficient_quota"
            ),
        ),
    }
    for fault, (status, body) in refused.items():
        yield Case(
            fault,
            answered(status, body),
            out_of_keys,
            released(status, "No active API keys for provider "),
            has_middle=True,
            rests_key=True,
        )
    limited = error_body(dialect, "rate_limit_error", "Too many requests.", "rate_limit_exceeded")
    for kind, (value, told) in RETRY_AFTER.items():
        head = [*JSON_HEAD, *([("retry-after", value)] if value else [])]
        yield Case(
            f"429 with retry-after: {kind}",
            answered(429, limited, head),
            View(429, End.OUR_ERROR, code="rate_limit_exceeded", retry_after=told),
            released(429, r"Provider \S+ is rate limited\. "),
            has_middle=True,
            rests_key=True,
        )


def _broken(dialect: Dialect) -> Iterator[Case]:
    """An error that is cut short is still that error."""
    body = error_body(dialect, "api_error", "x" * 1000)

    async def closed(request: SeenRequest, out: Out, stage: Stage) -> None:
        await out.head(500, JSON_HEAD, length=len(body))
        await out.send(body[:500])
        await stage.fault()
        out.close()

    yield Case(
        "500 that breaks off",
        closed,
        View(500, End.CLEAN, body[:500]),
        released(500, "the provider answered 500$"),
        has_middle=True,
    )

    async def cut_in_the_page(request: SeenRequest, out: Out, stage: Stage) -> None:
        await out.head(500, HTML_HEAD, length=len(PAGE))
        await out.send(PAGE[:1_000_000])
        await stage.fault()
        out.close()

    yield Case(
        "500 with a page that breaks off",
        cut_in_the_page,
        View(500, End.CUT, PAGE[: 64 * 1024]),
        released(500, "the provider answered 500$"),
        has_middle=True,
    )
