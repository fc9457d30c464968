"""Owns the errors of llmproxy and the one error envelope that clients see.

    LlmproxyError                 every error with a message for a person; has an exit code
    ├── MoneyError                an amount, price or multiplier that cannot be taken exactly
    ├── CatalogError              the model catalog cannot be used as it is
    ├── ConfigError               a setting is wrong
    ├── VaultError                a provider key cannot be sealed or opened
    ├── NotFoundError             what was named does not exist
    ├── RefusedError              exists already, is running already, or must not be done
    ├── DatabaseError             the database cannot be used as it is
    └── ApiError                  an answer to a client: status, code, wording, retry advice
        └── NotAllowedError       a limit of the API key forbids it

Domain modules raise these with a message that says what to do; they become text in two places
only, `server/` (the envelope) and `cli/app.py` (exit codes). Imports nothing of ours.
"""

import json


class LlmproxyError(Exception):
    """Base of all errors with a message meant for people.

    `without_command` is the message for who has a button for what it advises.
    """

    exit_code = 1

    def __init__(self, message: str = "", *, command: str = "") -> None:
        """Take the message, and the command that does what its last words advise, if any does."""
        text = f"{message}: {command}" if command else message
        super().__init__(*([text] if text else []))
        self.without_command = f"{message}." if command else message


class MoneyError(LlmproxyError):
    """An amount, price or multiplier that cannot be taken exactly."""

    exit_code = 2


class CatalogError(LlmproxyError):
    """The model catalog cannot be used as it is."""


class ConfigError(LlmproxyError):
    """A setting is wrong."""

    exit_code = 2


class VaultError(LlmproxyError):
    """A provider key cannot be sealed or opened."""


class NotFoundError(LlmproxyError):
    """What was named does not exist."""

    exit_code = 3


class RefusedError(LlmproxyError):
    """Exists already, is running already, or must not be done."""

    exit_code = 4


class DatabaseError(LlmproxyError):
    """The database cannot be used as it is."""

    exit_code = 5


LEDGER_RETRY_AFTER_S = 5
OVERLOADED_RETRY_AFTER_S = 2
RETRY_AFTER_S_MAX = 60
"""Longer waits are slept through by some SDKs for as long as told (reference wire.md D.3)."""

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    409: "conflict_error",
    413: "request_too_large",
    415: "invalid_request_error",
    422: "invalid_request_error",
    426: "invalid_request_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
}


_GOOGLES_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "RESOURCE_EXHAUSTED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    413: "INVALID_ARGUMENT",
    415: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    504: "DEADLINE_EXCEEDED",
}


class ApiError(LlmproxyError):
    """A refusal or failure as the client sees it, in the hybrid envelope of wire.md D.2.

    `should_retry` False tells SDKs that trying again cannot help; None leaves it to them.
    `fields` are further JSON fields of the `error` object.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        should_retry: bool | None = False,
        retry_after_s: int | None = None,
        fields: dict[str, object] | None = None,
    ) -> None:
        """Take the HTTP status, our error code and the wording; see the class for the rest."""
        message = _encodable(message)
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = None if param is None else _encodable(param)
        self.should_retry = should_retry
        self.retry_after_s = retry_after_s
        self.fields = {
            name: _encodable(value) if isinstance(value, str) else value
            for name, value in (fields or {}).items()
        }
        self.extra_headers: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def type(self) -> str:
        """The error type in Anthropic's words, which OpenAI's SDKs accept too."""
        return _ERROR_TYPES.get(self.status, "api_error")

    def body(self, request_id: str, dialect: str = "") -> bytes:
        """Return the JSON envelope that all SDKs show (reference wire.md D.2).

        Google's read the HTTP status as `code`, and a word for it; ours is the `reason` there.
        """
        error = {
            "type": self.type,
            "message": self.message,
            "param": self.param,
            "code": self.code,
            **self.fields,
        }
        if dialect == "gemini":
            status = _GOOGLES_STATUSES.get(self.status, "UNAVAILABLE")
            error |= {"code": self.status, "status": status, "reason": self.code}
        envelope = {
            "error": error,  # first: Google's SDK for Python takes it for an error only there
            "type": "error",
            "message": self.message,
            "request_id": request_id,
        }
        return json.dumps(envelope, ensure_ascii=False).encode()

    def headers(self, request_id: str) -> list[tuple[bytes, bytes]]:
        """Return the headers of an error answer without its content-length."""
        own_id = request_id.encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"x-request-id", own_id),
            (b"request-id", own_id),
            (b"x-llmproxy-request-id", own_id),
            *self.extra_headers,
        ]
        if self.should_retry is not None:
            headers.append((b"x-should-retry", b"true" if self.should_retry else b"false"))
        if self.retry_after_s is not None:
            seconds = str(min(self.retry_after_s, RETRY_AFTER_S_MAX)).encode()
            headers += [(b"retry-after", seconds), (b"retry-after-ms", seconds + b"000")]
        return headers

    def event(self, request_id: str, dialect: str = "") -> bytes:
        """Return the error as a server-sent event, for an answer that has already begun.

        It has no name in Google's dialect, whose SDKs skip those that have one.
        """
        name = b"" if dialect == "gemini" else b"event: error\n"
        return name + b"data: " + self.body(request_id, dialect) + b"\n\n"


class NotAllowedError(ApiError):
    """A refusal by a limit of the API key, which the operator may have changed meanwhile."""


def _encodable(text: str) -> str:
    """Return a text that may quote what a client sent, without its half characters."""
    return text.encode(errors="replace").decode()


def invalid_request(message: str, *, param: str | None = None) -> ApiError:
    """Return a 400 for a body or header that cannot be served as it is."""
    return ApiError(400, "invalid_request", message, param=param)


def unknown_path() -> ApiError:
    """Return the 404 for a path that leads nowhere."""
    return ApiError(
        404,
        "unknown_path",
        "There is nothing at this path. Use /v1/{provider}/{endpoint}, such as "
        "/v1/openai/chat/completions or /v1/anthropic/messages.",
    )


def wrong_method(allowed: str) -> ApiError:
    """Return the 405 for a path that takes only the allowed method."""
    error = ApiError(405, "invalid_request", f"Use {allowed} for this path.")
    error.extra_headers = ((b"allow", allowed.encode()),)
    return error


def compressed_body() -> ApiError:
    """Return the 415 for a body that would have to be unpacked first."""
    message = "Compressed request bodies are not read. Send it plain."
    error = ApiError(415, "invalid_request", message)
    error.extra_headers = ((b"accept-encoding", b"identity"),)
    return error


def websocket_unsupported() -> ApiError:
    """Return the 426 after which clients go on with plain HTTP (reference wire.md F.4)."""
    error = ApiError(426, "websocket_unsupported", "WebSocket is not served here. Use HTTP.")
    error.extra_headers = ((b"upgrade", b"HTTP/1.1"), (b"connection", b"Upgrade"))
    return error


def unknown_model_pricing(
    provider: str, model: str, nearest: list[str], elsewhere: list[tuple[str, str]]
) -> ApiError:
    """Return the 400 for a model that the catalog has no price for.

    Args:
        provider: which was asked for it.
        model: its name, as it was given.
        nearest: ids of this provider that are alike.
        elsewhere: other providers with the id of their model that has this name.
    """
    message = f'Unknown model pricing: "{model}" is not in the model catalog. '
    if nearest:
        message += f"Nearest: {', '.join(nearest)}."
    else:
        message += f"Provider {provider} has no priced model for this API key."
    message += "".join(f" At provider {name}: {model_id}." for name, model_id in elsewhere)
    return ApiError(400, "unknown_model_pricing", message, param="model")


def model_not_found(provider: str, model: str) -> ApiError:
    """Return the 404 for one model of a list that is not in it."""
    message = f'Provider {provider} has no priced model "{model:.100}".'
    return ApiError(404, "model_not_found", message, param="model")


def invalid_api_key(*, given: bool) -> ApiError:
    """Return the 401 for a missing or unknown API key; the key itself is never echoed."""
    message = (
        "Invalid API key. It is unknown, expired or revoked."
        if given
        else "No API key given. Send it as `Authorization: Bearer <key>` or `x-api-key: <key>`."
    )
    return ApiError(401, "invalid_api_key", message)


def user_disabled() -> ApiError:
    """Return the 403 for a good API key of a user whom the operator has shut out."""
    message = "This API key's user is disabled. An administrator can enable them again."
    return ApiError(403, "user_disabled", message)


def not_allowed(what: str, *, code: str) -> NotAllowedError:
    """Return the 403 for what an API key may not do; `what` says what that is."""
    return NotAllowedError(403, code, f"This API key {what}. An administrator can change that.")


def api_key_suspended(reason: str, command: str) -> NotAllowedError:
    """Return the 403 for an API key that was suspended; the command lifts it."""
    message = f"This API key is suspended: {reason}. An administrator can resume it: {command}"
    return NotAllowedError(403, message=message, code="api_key_suspended")


def provider_paused(provider: str, reason: str) -> ApiError:
    """Return the 429 for a provider that an operator has paused."""
    message = f"Provider {provider} is paused: {reason}. An administrator can resume it."
    return ApiError(429, "provider_paused", message)


def provider_failing(provider: str, reason: str, wait_ms: int) -> ApiError:
    """Return the 429 for a provider that is left alone for a while because it fails."""
    wait_s = seconds_of(wait_ms)
    message = f"Provider {provider} is paused: {reason}. It is tried again in {wait_s} s."
    return ApiError(429, "provider_paused", message, should_retry=None, retry_after_s=wait_s)


def all_keys_cooling(provider: str, wait_ms: int) -> ApiError:
    """Return the 429 for a provider whose keys are all rate limited for a short while."""
    wait_s = seconds_of(wait_ms)
    message = f"Provider {provider} is rate limited. Try again in {wait_s} s."
    return ApiError(429, "rate_limit_exceeded", message, should_retry=None, retry_after_s=wait_s)


def seconds_of(wait_ms: int) -> int:
    """Return a wait in whole seconds, one at least."""
    return max(1, -(-wait_ms // 1000))


def no_active_provider_keys(provider: str) -> ApiError:
    """Return the 503 for a provider without a usable key."""
    message = f"No active API keys for provider {provider}. An administrator must add one."
    return ApiError(503, "no_active_provider_keys", message)


def previous_response_not_found() -> ApiError:
    """Return the 400 for a response that is unknown, or not this user's: which, is not told.

    The code is OpenAI's own: clients that know it send the whole conversation then.
    """
    message = (
        "`previous_response_id` names no stored response of yours here: it was made elsewhere or "
        "by another user, with `store` false, or more than 30 days ago. Send the whole "
        "conversation without it."
    )
    return ApiError(400, "previous_response_not_found", message, param="previous_response_id")


def previous_response_unavailable() -> ApiError:
    """Return the 400 for a stored response whose provider key cannot be used now."""
    message = (
        "The provider key that made the response in `previous_response_id` is not in service, and "
        "no other key can read it. Send the whole conversation without it, or ask the operator."
    )
    return ApiError(400, "previous_response_unavailable", message, param="previous_response_id")


def credit_ended() -> ApiError:
    """Return the end of an answer that has used up the credit while it ran."""
    return ApiError(
        402,
        "insufficient_credit",
        "Insufficient credit balance — the answer was ended where the credit did, and what came "
        "of it was charged. Top up, or lower max_tokens.",
    )


def budget_ended() -> ApiError:
    """Return the end of an answer that has used up a budget of its API key while it ran."""
    return ApiError(
        402,
        "budget_exceeded",
        "The budget of this API key is used up — the answer was ended where the budget did, and "
        "what came of it was charged. An administrator can raise it.",
    )


def ledger_busy() -> ApiError:
    """Return the 503 for a moment in which it cannot be used; the log says why, not this."""
    message = "The ledger cannot be used now. Try again in a moment."
    return ApiError(
        503, "ledger_busy", message, should_retry=None, retry_after_s=LEDGER_RETRY_AFTER_S
    )


def overloaded(what: str) -> ApiError:
    """Return the 503 for more than may be in memory at once."""
    message = f"{what} Try again in a moment."
    return ApiError(
        503, "overloaded", message, should_retry=True, retry_after_s=OVERLOADED_RETRY_AFTER_S
    )


def proxy_error(
    status: int,
    what: str,
    request_id: str,
    *,
    code: str = "proxy_error",
    should_retry: bool | None = None,
) -> ApiError:
    """Return a 5xx of our own: `Proxy error: {what}. Request id {id}.` and advice."""
    message = f"Proxy error: {what}. Request id {request_id}."
    return ApiError(status, code, message, should_retry=should_retry)
