"""Every row of the table of refusals (reference wire.md E), through the real relay.

Two keys of one provider, of which the first that is tried is refused so; the other one is good.
What becomes of the key, and does its user get their answer all the same?
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from llmproxy import key_pool
from llmproxy.clock import Clock
from llmproxy.config import find_paths, load_vault
from tests.proxy.conftest import add_provider, running_site
from tests.proxy.helpers import CHAT, MESSAGES, Got, Site, chat, message
from tests.support.answers import anthropic_message, openai_chat
from tests.support.proxy import PROVIDER_KEY
from tests.support.stub_provider import Out, SeenRequest
from tests.support.waiting import wait_until

PROVIDERS = ("openai", "anthropic", "openrouter")
SECOND_KEY = "sk-provider-secret-0002"
OPENROUTER = "/v1/openrouter/chat/completions"
COUNT_TOKENS = "/v1/anthropic/messages/count_tokens"
MODERATIONS = "/v1/openai/moderations"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("refusals"), {}) as site:
        prices = ("--in-price", "2.5", "--out-price", "10")
        site.proxy.run("catalog", "set", "openrouter", "openai/gpt-4o", *prices)
        add_provider(site, "openrouter")
        for provider in PROVIDERS:
            renew(site, provider)
        yield site


def renew(site: Site, provider: str) -> None:
    """Give a provider two new keys in the place of those that it has: new ones do not rest."""
    vault = load_vault(find_paths(site.proxy.environ), site.proxy.environ)
    assert vault is not None
    now_ms = Clock().now_ms()
    with site.books.write() as tx:
        for key in key_pool.list_provider_keys(tx, provider):
            key_pool.remove_provider_key(tx, provider, key.name, actor="test", now_ms=now_ms)
        for secret in (PROVIDER_KEY, SECOND_KEY):
            key_pool.add_provider_key(
                tx, provider, secret, name=None, vault=vault, actor="test", now_ms=now_ms
            )


class Refusal(NamedTuple):
    """What the provider says to the first key, and to a probe with it."""

    status: int
    error: dict[str, Any]
    headers: tuple[tuple[str, str], ...] = ()
    probe_status: int = 200
    path: str = CHAT


class FirstRefused:
    """A provider that does not like the key that it meets first."""

    def __init__(self, refusal: Refusal) -> None:
        self._refusal = refusal
        self._disliked: bytes | None = None
        self.sent = 0
        self.probes = 0

    async def __call__(self, request: SeenRequest, out: Out) -> None:
        key = request.header("authorization") or request.header("x-api-key") or b""
        if request.method == "GET":
            self.probes += 1
            refused = {"error": self._refusal.error}
            status = self._refusal.probe_status if key == self._disliked else 200
            await out.json(status, {"data": []} if status == 200 else refused)
            return
        self.sent += 1
        self._disliked = self._disliked or key
        if key == self._disliked:
            body = {"type": "error", "error": self._refusal.error}
            await out.json(self._refusal.status, body, self._refusal.headers)
        elif self._refusal.path == MESSAGES:
            await out.json(200, anthropic_message())
        elif self._refusal.path in {COUNT_TOKENS, MODERATIONS}:
            await out.json(200, {"input_tokens": 3})
        else:
            await out.json(200, openai_chat())


def states(site: Site, path: str) -> list[str]:
    provider = path.split("/")[2]
    return sorted(state for state, _ in site.books.key_states(provider).values())


def ask(site: Site, refusal: Refusal) -> tuple[Got, FirstRefused]:
    site.stub.handle = provider = FirstRefused(refusal)
    for name in PROVIDERS:
        site.books.set_key_states(name, "active")
    visitor = site.visitor()
    body = message() if refusal.path in {MESSAGES, COUNT_TOKENS} else chat()
    if refusal.path == MODERATIONS:
        body = json.dumps({"model": "omni-moderation-latest", "input": "hi"}).encode()
    if refusal.path == OPENROUTER:
        body = chat(model="openai/gpt-4o")
    # Until the server has seen that all keys are active it may use none of them.
    wait_until(lambda: states(site, refusal.path) == ["active", "active"])
    assert site.ask(site.visitor(), CHAT, chat(model="no-such-model")).status == 400
    return site.ask(visitor, refusal.path, body), provider


def error(message: str = "no", **fields: object) -> dict[str, Any]:
    return {"message": message, **fields}


DEAD = {
    "openai, invalid_api_key": Refusal(401, error(code="invalid_api_key")),
    "openai, account_deactivated": Refusal(401, error(code="account_deactivated")),
    "anthropic, invalid x-api-key": Refusal(
        401, error("invalid x-api-key", type="authentication_error"), path=MESSAGES
    ),
    "gemini, a 400": Refusal(400, error(details=[{"reason": "API_KEY_INVALID"}])),
    "anthropic, on hold": Refusal(
        400, error(details={"error_code": "organization_on_hold"}), path=MESSAGES
    ),
    "groq, restricted": Refusal(400, error(code="organization_restricted")),
    "any 401, when a probe says so too": Refusal(401, error(), probe_status=401),
    "not a member, when a probe says so too": Refusal(
        401, error("You must be a member of an organization to use the API"), probe_status=401
    ),
    "no country for it, when a probe says so too": Refusal(
        403, error(code="unsupported_country_region_territory"), probe_status=403
    ),
    "of a free endpoint": Refusal(401, error(code="invalid_api_key"), path=MODERATIONS),
}


@pytest.mark.parametrize("case", DEAD)
def test_a_key_that_is_not_valid_is_taken_out_and_the_next_one_serves(
    site: Site, case: str
) -> None:
    refusal = DEAD[case]
    got, provider = ask(site, refusal)
    assert (got.status, provider.sent) == (200, 2)
    wait_until(lambda: states(site, refusal.path) == ["active", "dead"])


OUT_OF_QUOTA = {
    "openai, insufficient_quota": Refusal(429, error(type="insufficient_quota")),
    "openai, organization_spend_limit_exceeded": Refusal(
        429, error(code="organization_spend_limit_exceeded")
    ),
    "openai, project_spend_limit_exceeded": Refusal(
        429, error(code="project_spend_limit_exceeded")
    ),
    "openai, credit_balance_exhausted": Refusal(429, error(code="credit_balance_exhausted")),
    "openai, organization_usage_limit_exceeded": Refusal(
        429, error(code="organization_usage_limit_exceeded")
    ),
    "openai, billing_not_active": Refusal(429, error(code="billing_not_active")),
    "anthropic, credit too low": Refusal(
        400,
        error(
            "Your credit balance is too low to access the Anthropic API. "
            "Please go to Plans & Billing to upgrade or purchase credits."
        ),
        path=MESSAGES,
    ),
    "anthropic, usage limits": Refusal(
        400, error("You have reached your specified workspace API usage limits."), path=MESSAGES
    ),
    "anthropic, billing_error": Refusal(402, error(type="billing_error"), path=MESSAGES),
    "anthropic, enforced_spend_limit_reached": Refusal(
        429, error(details={"error_code": "enforced_spend_limit_reached"}), path=MESSAGES
    ),
    "deepseek, insufficient balance": Refusal(402, error("Insufficient Balance")),
    "gemini, prepaid credit is gone": Refusal(402, error(status="RESOURCE_EXHAUSTED")),
}


@pytest.mark.parametrize("case", OUT_OF_QUOTA)
def test_an_account_without_quota_is_parked_and_the_next_key_serves(site: Site, case: str) -> None:
    refusal = OUT_OF_QUOTA[case]
    got, provider = ask(site, refusal)
    assert (got.status, provider.sent) == (200, 2)
    wait_until(lambda: states(site, refusal.path) == ["active", "out_of_quota"])


COOLING = {
    "openai, rate_limit_exceeded": Refusal(429, error(code="rate_limit_exceeded")),
    "openai, slow_down": Refusal(429, error(code="slow_down"), (("retry-after", "1"),)),
    "openai, ramp_limit_exceeded": Refusal(429, error(code="ramp_limit_exceeded")),
    "anthropic, rate_limit_error": Refusal(
        429, error(type="rate_limit_error"), (("retry-after", "1"),), path=MESSAGES
    ),
    "gemini, retryDelay": Refusal(429, error(details=[{"retryDelay": "1s"}])),
    "openrouter, budget in flight": Refusal(402, error(), (("retry-after", "1"),), path=OPENROUTER),
}


@pytest.mark.parametrize("case", COOLING)
def test_a_key_that_is_rate_limited_rests_and_the_next_one_serves(site: Site, case: str) -> None:
    got, provider = ask(site, COOLING[case])
    assert (got.status, provider.sent, provider.probes) == (200, 2, 0)
    assert states(site, COOLING[case].path) == ["active", "active"]
    renew(site, COOLING[case].path.split("/")[2])


UNFIT = {
    "openai, missing scopes": Refusal(
        401,
        error(
            "You have insufficient permissions for this operation. Missing scopes: model.request."
        ),
        probe_status=401,
    ),
    "openrouter, too large a maximum": Refusal(
        402,
        error(
            "This request requires more credits, or fewer max_tokens. You requested up to 100 "
            "tokens, but can only afford 7."
        ),
        path=OPENROUTER,
    ),
}


@pytest.mark.parametrize("case", UNFIT)
def test_a_key_that_may_not_do_just_this_stays_and_the_next_one_serves(
    site: Site, case: str
) -> None:
    got, provider = ask(site, UNFIT[case])
    assert (got.status, provider.sent, provider.probes) == (200, 2, 0)
    assert states(site, UNFIT[case].path) == ["active", "active"]


def test_a_401_that_a_probe_does_not_confirm_leaves_the_key_in_use(site: Site) -> None:
    got, provider = ask(site, Refusal(401, error("This header is not allowed."), probe_status=200))
    assert (got.status, provider.sent) == (200, 2)
    wait_until(lambda: provider.probes == 1)
    assert states(site, CHAT) == ["active", "active"]


PASSED = {
    "anthropic, overloaded": Refusal(529, error(type="overloaded_error"), path=MESSAGES),
    "busy": Refusal(503, error("server is overloaded")),
    "groq, capacity": Refusal(498, error("capacity exceeded")),
    "broken": Refusal(500, error("server_error")),
    "bad gateway": Refusal(502, error()),
    "timeout": Refusal(504, error()),
    "model_not_found": Refusal(404, error(code="model_not_found")),
    "forbidden model": Refusal(403, error(type="permission_error", code="model_not_allowed")),
    "content_policy": Refusal(400, error(code="content_policy_violation")),
    "context_length": Refusal(400, error(code="context_length_exceeded")),
    "too large": Refusal(413, error(type="request_too_large"), path=MESSAGES),
    "unprocessable": Refusal(422, error()),
    "words of the client's own": Refusal(
        400, error("Invalid value: 'Your credit balance is too low to access the Anthropic API.'")
    ),
    "one request too large for the limit": Refusal(
        429, error("Request too large for gpt-4o on tokens per min (TPM)")
    ),
}


@pytest.mark.parametrize("case", PASSED)
def test_what_is_not_about_the_key_passes_and_no_key_is_touched(site: Site, case: str) -> None:
    refusal = PASSED[case]
    got, provider = ask(site, refusal)
    assert (got.status, provider.sent, provider.probes) == (refusal.status, 1, 0)
    assert json.loads(got.body) == {"type": "error", "error": refusal.error}
    assert states(site, refusal.path) == ["active", "active"]


@pytest.mark.parametrize(
    ("case", "told"),
    [
        ("openai, missing scopes", "no key of openai has the rights"),
        ("openrouter, too large a maximum", "no key of openrouter has the rights, or the credit"),
    ],
)
def test_when_no_key_may_do_it_the_client_is_told_so_without_the_providers_words(
    site: Site, case: str, told: str
) -> None:
    refusal = UNFIT[case]

    async def refuse(request: SeenRequest, out: Out) -> None:
        await out.json(refusal.status, {"error": refusal.error})

    ask(site, refusal)
    site.stub.handle = refuse
    body = chat(model="openai/gpt-4o") if refusal.path == OPENROUTER else chat()
    got = site.ask(site.visitor(), refusal.path, body)
    assert (got.status, got.error()["code"]) == (503, "upstream_keys_refused")
    assert told in got.error()["message"]
    assert b"scopes" not in got.body
    assert b"afford" not in got.body
    assert states(site, refusal.path) == ["active", "active"]


def test_a_limit_of_a_free_endpoint_leaves_the_paid_ones_alone(site: Site) -> None:
    async def handle(request: SeenRequest, out: Out) -> None:
        if b"count_tokens" in request.target:
            await out.json(429, {"error": {"message": "slow"}}, [("retry-after", "60")])
        else:
            await out.json(200, anthropic_message())

    site.books.set_key_states("anthropic", "active")
    site.stub.handle = handle
    assert site.ask(site.visitor(), COUNT_TOKENS, message()).status == 429
    assert site.ask(site.visitor(), MESSAGES, message()).status == 200
    assert site.ask(site.visitor(), COUNT_TOKENS, message()).status == 429
    renew(site, "anthropic")


def test_a_limit_of_one_tier_leaves_the_others_alone(site: Site) -> None:
    async def handle(request: SeenRequest, out: Out) -> None:
        if b"flex" in request.body:
            await out.json(429, {"error": {"message": "slow"}}, [("retry-after", "60")])
        else:
            await out.json(200, openai_chat())

    renew(site, "openai")
    site.stub.handle = handle
    flex = chat(model="gpt-5", max_completion_tokens=100, service_tier="flex")
    assert site.ask(site.visitor(), CHAT, flex).error()["code"] == "rate_limit_exceeded"
    assert site.ask(site.visitor(), CHAT, chat(model="gpt-5")).status == 200
    renew(site, "openai")
