"""What a provider's error answer means for the key that was used: every row of wire.md E."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from llmproxy.dialects.failures import EXCERPT_CHARS_MAX, Failure, FailureKind, classify
from tests.support.answers import ErrorCase, anthropic_error, openai_error

DEAD = FailureKind.DEAD
OUT = FailureKind.OUT_OF_QUOTA
COOLDOWN = FailureKind.COOLDOWN
BUSY = FailureKind.BUSY
UNKNOWN = FailureKind.UNKNOWN
CLIENT = FailureKind.CLIENT
SUSPECT = FailureKind.SUSPECT
UNFIT = FailureKind.UNFIT
NOW_MS = 784_111_777_250
"""A quarter of a second after Sun, 06 Nov 1994 08:49:37 GMT, the date of RFC 9110."""


def error(message: str = "", **fields: object) -> bytes:
    return json.dumps({"error": {"message": message, **fields}}).encode()


def failure(status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    return classify(status, headers, body, NOW_MS)


def kind(status: int, body: bytes = b"", **headers: str) -> FailureKind:
    return failure(status, headers, body).kind


GEMINI_BAD_KEY = [
    {
        "error": {
            "code": 400,
            "status": "INVALID_ARGUMENT",
            "message": "API key not valid. Please pass a valid API key.",
            "details": [{"@type": "type.googleapis.com/x", "reason": "API_KEY_INVALID"}],
        }
    }
]
CREDIT_TOO_LOW = (
    "Your credit balance is too low to access the Anthropic API. "
    "Please go to Plans & Billing to upgrade or purchase credits."
)
LIMITS = "You have reached your specified{} API usage limits. You will regain access on {}."
UNTIL = "2026-12-01 at 00:00 UTC"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, error("Incorrect API key provided", code="invalid_api_key")),
        (401, error("The account is gone", code="account_deactivated")),
        (401, error("invalid x-api-key", type="authentication_error")),
        (403, error("deactivated", code="account_deactivated")),
        (400, json.dumps(GEMINI_BAD_KEY).encode()),
        (400, json.dumps(GEMINI_BAD_KEY[0]).encode()),
        (400, error("API key not valid. Please pass a valid API key.")),
        (403, error("Your API key was reported as leaked.", status="PERMISSION_DENIED")),
        (403, error("Your API key was reported as leaked. Please use another API key.")),
        (400, error("On hold", details={"error_code": "organization_on_hold"})),
        (403, error("This organization has been disabled.")),
        (400, error("This organization has been disabled.", type="invalid_request_error")),
        (
            400,
            error(
                "Organization has been restricted. Please reach out to support if you believe "
                "this was in error.",
                code="organization_restricted",
            ),
        ),
    ],
)
def test_a_key_that_is_not_valid_any_more_is_dead(status: int, body: bytes) -> None:
    assert kind(status, body) is DEAD


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, error("You must be a member of an organization to use the API")),
        (401, error("Your IP is not authorized", code="ip_not_authorized")),
        # Anthropic's word for what a client's own headers can bring about too.
        (401, error("OAuth is not supported here", type="authentication_error")),
        (403, error("x", code="unsupported_country_region_territory")),
        (401, b"anything else"),
        (401, b""),
    ],
)
def test_a_refusal_that_the_request_may_have_caused_is_to_be_asked_about(
    status: int, body: bytes
) -> None:
    assert kind(status, body) is SUSPECT


@pytest.mark.parametrize(
    "reason",
    [
        *("SERVICE_DISABLED", "BILLING_DISABLED", "CONSUMER_SUSPENDED", "CONSUMER_INVALID"),
        *("API_KEY_IP_ADDRESS_BLOCKED", "API_KEY_SERVICE_BLOCKED"),
    ],
)
def test_what_google_says_of_the_project_is_no_clients_mistake(reason: str) -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason}]
    told = error("It is disabled in project 12345.", status="PERMISSION_DENIED", details=details)
    assert kind(403, told) is SUSPECT
    assert kind(400, told) is CLIENT


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "You have insufficient permissions for this operation. Missing scopes: api.x."),
        (403, "Missing scopes: model.request"),
        (429, "Extra usage is required for long context requests."),
    ],
)
def test_a_key_that_cannot_serve_just_this_request_is_unfit_for_it(
    status: int, message: str
) -> None:
    assert kind(status, error(message)) is UNFIT
    assert kind(status, error(f"Invalid value: {message}")) is not UNFIT


@pytest.mark.parametrize(
    "body",
    [
        error("This request requires more credits, or fewer max_tokens. You requested up to 9."),
        error("Prompt tokens limit exceeded: 12345 > 2000"),
        error("insufficient credit balance", code="insufficient_credit"),
        b"",
    ],
)
def test_a_402_that_may_be_about_one_request_takes_the_key_from_nobody_else(body: bytes) -> None:
    assert kind(402, body) is UNFIT


@pytest.mark.parametrize("echo", ["sk-ab\\/cd+ef", "sk-ab/cd\\u002bef", "sk-ab/cd+ef"])
def test_an_excerpt_never_shows_the_key_however_it_is_escaped(echo: str) -> None:
    body = b'{"error":{"message":"no: ' + echo.encode() + b'"}}'
    found = classify(401, {}, body, NOW_MS, secret="sk-ab/cd+ef")
    assert found.excerpt == "401: no: ***"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (429, error("You exceeded your current quota", type="insufficient_quota")),
        (429, error("x", code="insufficient_quota")),
        (429, error("x", code="credit_balance_exhausted")),
        (429, error("x", code="organization_spend_limit_exceeded")),
        (429, error("x", code="project_spend_limit_exceeded")),
        (429, error("x", code="organization_usage_limit_exceeded")),
        (429, error("x", code="billing_not_active")),
        (429, error("x", details={"error_code": "enforced_spend_limit_reached"})),
        (429, error("x", details=[{"error_code": "contract_spend_limit_reached"}])),
        (400, error(CREDIT_TOO_LOW, type="invalid_request_error")),
        (400, error("Your credit balance is too low to access the Anthropic API.")),
        (400, error("Your credit balance is too low to access the Claude API.")),
        (400, error("x", details={"error_code": "credit_balance_too_low"})),
        (400, error(LIMITS.format("", UNTIL), type="invalid_request_error")),
        (400, error(LIMITS.format(" workspace", UNTIL))),
        (402, error("x", type="billing_error")),
        (402, error("Insufficient Balance")),
        (403, error("x", type="billing_error")),
        (402, error("Prepaid credit is gone", status="RESOURCE_EXHAUSTED")),
    ],
)
def test_an_account_that_is_empty_or_at_its_limit_is_out_of_quota(status: int, body: bytes) -> None:
    assert kind(status, body) is OUT


def test_a_quota_signal_counts_more_than_a_retry_after() -> None:
    assert kind(429, error(type="insufficient_quota"), **{"retry-after": "5"}) is OUT


def test_a_402_that_names_a_moment_is_a_rate_limit() -> None:
    # OpenRouter: the budget in flight.
    assert failure(402, {"retry-after": "9"}, error("x")) == Failure(COOLDOWN, "402: x", 9)


@pytest.mark.parametrize(
    "body",
    [
        error("Rate limit reached", code="rate_limit_exceeded"),
        error("x", type="rate_limit_error"),
        error("x", code="slow_down"),
        error("x", code="ramp_limit_exceeded"),
        b"",
        b"<html>Too many requests</html>",
    ],
)
def test_a_429_is_a_rate_limit(body: bytes) -> None:
    assert kind(429, body) is COOLDOWN


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7),
        ("0", 1),
        ("0.2", 1),
        ("1.2", 2),  # never sooner than told
        ("60", 60),
        ("3601", 3600),
        ("99999999999999999999", 3600),
        ("inf", 3600),
        ("-1", None),
        ("nan", None),
        ("soon", None),
        ("", None),
        ("Sun, 06 Nov 1994 08:49:57 GMT", 20),
        ("Sunday, 06-Nov-94 08:49:57 GMT", 20),
        ("Sun Nov  6 08:49:57 1994", 20),
        ("Sun, 06 Nov 1994 08:49:57 -0000", 20),
        ("Sun, 06 Nov 1994 09:49:57 +0100", 20),
        ("Sun, 06 Nov 1994 08:49:38 GMT", 1),
        ("Sun, 06 Nov 1994 08:50:38 GMT", 61),
        ("Wed, 21 Oct 2037 07:28:00 GMT", 3600),
        ("Sun, 06 Nov 1994 08:49:37 GMT", None),  # past: it tells nothing
        ("Sat, 05 Nov 1994 08:49:57 GMT", None),
        ("Sun, 31 Feb 1994 08:49:57 GMT", None),
        ("Sun, 06 Nov 99999999999 08:49:57 GMT", None),
        ("Sun, 06 Nov 1994 08:49:57 +99999999999999", None),
        ("Sun, 06 Nov 1994 08:49:57 GMT" + " " * 60, None),
    ],
)
def test_a_key_rests_as_long_as_told_within_bounds(value: str, seconds: int) -> None:
    assert failure(429, {"retry-after": value}, b"").retry_after_s == seconds


def test_a_key_rests_five_seconds_when_nothing_is_told() -> None:
    assert failure(429, {}, b"").retry_after_s is None


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [("34s", 34), ("1.5s", 2), ("9000s", 3600), ("x", None), (7, None), ("-3s", None)],
)
def test_geminis_own_way_to_tell_is_read(delay: object, seconds: int | None) -> None:
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}
    body = error("Resource exhausted", status="RESOURCE_EXHAUSTED", details=[{"x": 1}, info])
    assert failure(429, {}, body) == Failure(COOLDOWN, "429: Resource exhausted", seconds)
    assert failure(429, {"retry-after": "3"}, body).retry_after_s == 3


@pytest.mark.parametrize("status", [503, 529, 498])
def test_an_overloaded_provider_is_no_keys_fault(status: int) -> None:
    assert kind(status, error("insufficient_quota", code="insufficient_quota")) is BUSY


@pytest.mark.parametrize("status", [500, 502, 504, 520, 599, 300, 301, 302, 307, 308])
def test_other_failures_of_the_provider_have_an_unknown_outcome(status: int) -> None:
    assert kind(status, error("billing_not_active", code="billing_not_active")) is UNKNOWN


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, error("Invalid 'temperature'", code="invalid_value")),
        (400, error("maximum context length", code="context_length_exceeded")),
        (400, error("flagged", code="content_policy_violation")),
        (403, error("You have no access to the model", type="permission_error")),
        (404, error("no such model", code="model_not_found")),
        (404, error("x", code="insufficient_quota")),
        (408, b""),
        (413, error("x", type="request_too_large")),
        (422, error("API key not valid. Please pass a valid API key.")),
        (451, b""),
    ],
)
def test_the_clients_own_mistakes_do_nothing_to_a_key(status: int, body: bytes) -> None:
    assert kind(status, body) is CLIENT


TOO_LARGE = (
    "Request too large for gpt-4o in organization org-1 on tokens per min (TPM): Limit 30000, "
    "Requested 50000. The input or output tokens must be reduced in order to run successfully."
)
TOO_SOON = "Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000, Used 29000."


def test_a_request_that_is_too_large_for_any_minute_rests_no_key() -> None:
    fields = {"type": "tokens", "code": "rate_limit_exceeded"}
    assert kind(429, error(TOO_LARGE, **fields), **{"retry-after": "9"}) is CLIENT
    assert kind(429, error(TOO_SOON, **fields)) is COOLDOWN
    assert kind(429, error(TOO_LARGE, code="insufficient_quota")) is OUT


KEY_TEXTS = [
    CREDIT_TOO_LOW,
    "Your credit balance is too low to access the Anthropic API.",
    "credit balance is too low",
    LIMITS.format("", UNTIL),
    "API usage limits",
    "Insufficient Balance",
    "This organization has been disabled.",
    "Organization has been restricted.",
    "API key not valid. Please pass a valid API key.",
    "Your API key was reported as leaked. Please use another API key.",
    "SERVICE_DISABLED",
]


@pytest.mark.parametrize("text", KEY_TEXTS)
@pytest.mark.parametrize(
    "echo",
    [
        "Invalid value: '{}'. Supported values are: 'text' and 'json_object'.",
        "{}: Extra inputs are not permitted",
        "Unexpected value(s) `{}` for the `anthropic-beta` header.",
        "messages.0.role: Input should be 'user', not '{}'",
        "Unrecognized request argument supplied: {}",
        "Project has no access to model `{}`",
    ],
)
def test_a_client_cannot_take_a_key_out_by_what_the_provider_echoes(text: str, echo: str) -> None:
    for status in (400, 403):
        assert kind(status, error(echo.format(text), type="invalid_request_error")) is CLIENT


CASES: dict[ErrorCase, FailureKind] = {
    "bad_key": DEAD,
    "quota": OUT,
    "rate_limit": COOLDOWN,
    "overloaded": BUSY,
    "server_error": UNKNOWN,
    "bad_request": CLIENT,
}


@pytest.mark.parametrize("case", CASES)
def test_the_providers_recorded_errors_are_understood(case: ErrorCase) -> None:
    for canned in (openai_error(case), anthropic_error(case)):
        headers = dict(canned.headers)
        assert failure(canned.status, headers, canned.body).kind is CASES[case]


@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xfe",
        b"[]",
        b"[1]",
        b"null",
        b"5",
        b'"x"',
        b"{}",
        b'{"error":null}',
        b'{"error":"text"}',
        b'{"error":[1]}',
        b'{"error":{"message":5,"code":5,"details":"x"}}',
        b'{"error":{"message":{"a":1},"details":[null,[],{"reason":[]}]}}',
        b'{"error":' + b"[" * 100_000,
        b'{"error":{"code":' + b"9" * 5000 + b"}}",
        b'{"detail":"x"}',
    ],
)
def test_an_error_body_of_any_shape_is_taken(body: bytes) -> None:
    for status in (400, 429, 500):
        assert failure(status, {}, body).excerpt.startswith(str(status))


def test_the_excerpt_is_short_and_names_status_and_message() -> None:
    assert failure(400, {}, error("No.")).excerpt == "400: No."
    assert failure(500, {}, b"<html>").excerpt == "500: <html>"
    for body in (error("x" * 5000), b"x" * 5000, json.dumps("x" * 5000).encode()):
        assert len(failure(400, {}, body).excerpt) == EXCERPT_CHARS_MAX


def test_a_message_without_an_envelope_is_read() -> None:
    body: dict[str, Any] = {"message": "Insufficient Balance", "code": "insufficient_quota"}
    assert kind(429, json.dumps(body).encode()) is OUT
