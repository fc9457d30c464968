"""Owns the answers that come from us and no provider: what we say ourselves, and why not."""

import logging

from llmproxy.clock import request_id_text
from llmproxy.errors import ApiError, DatabaseError, ledger_busy, proxy_error
from llmproxy.exchange import Client
from llmproxy.trace import Trace

_log = logging.getLogger("llmproxy.relay")


def answer(client: Client, body: bytes, request_id: bytes) -> None:
    """Answer a request that goes to no provider."""
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-llmproxy-request-id", request_id_text(request_id).encode()),
    ]
    client.start(200, headers)
    client.write(body, more=False)


def answer_failure(client: Client, failure: Exception, trace: Trace) -> None:
    """Answer whatever has kept a request from being served, in our envelope."""
    request_id = trace.request_id
    if isinstance(failure, ApiError):
        error = failure
    elif isinstance(failure, DatabaseError):
        _log.error("%s: %s", request_id, failure)
        error = ledger_busy()
    else:
        _log.error("%s: internal error", request_id, exc_info=failure)
        error = proxy_error(500, "an internal error", request_id, should_retry=False)
    trace.code = error.code
    if client.has_started:
        client.abort()  # an answer cut short must never look complete
        return
    body = error.body(request_id, trace.dialect)
    headers = [*error.headers(request_id), (b"content-length", b"%d" % len(body))]
    client.start(error.status, headers)
    client.write(body, more=False)
