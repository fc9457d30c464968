"""The SDKs of OpenAI and Anthropic, unchanged but for base URL and key, through the proxy."""

# ruff: noqa: ANN401 - the SDKs' overloads are wider than what the tests need.

import asyncio
import json
from collections.abc import Iterator
from fractions import Fraction
from math import ceil
from typing import Any, NamedTuple

import anthropic
import openai
import pytest

from llmproxy.demo.provider import DemoProvider
from tests.service.helpers import Books
from tests.support.demo import RunningDemo
from tests.support.proxy import RunningProxy

LONG = "All work and no play makes a dull prompt. " * 200  # 8,400 characters, 2,100 tokens
CREDIT = 5_000_000_000


@pytest.fixture(scope="module")
def demo() -> Iterator[DemoProvider]:
    with RunningDemo() as running:
        yield running.provider


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, demo: DemoProvider) -> Iterator[RunningProxy]:
    with RunningProxy(tmp_path_factory.mktemp("sdks")) as proxy:
        proxy.use_provider("openai", demo.openai_base_url, ("sk-demo-0001",))
        proxy.use_provider("anthropic", demo.anthropic_base_url, ("sk-demo-0002",))
        proxy.start()
        yield proxy
        proxy.verify_ledger()


@pytest.fixture(scope="module")
def books(proxy: RunningProxy) -> Iterator[Books]:
    books = Books(proxy.home)
    yield books
    books.close()


class User(NamedTuple):
    """A user with a key, and where the SDKs point."""

    name: str
    key: str
    openai_url: str
    anthropic_url: str
    books: Books

    def paid(self) -> int:
        """What this user has paid so far, in nano-USD, once nothing is held."""
        return CREDIT - self.books.settled_wallet(self.name)

    def gpt(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.openai_url, api_key=self.key)

    def claude(self) -> anthropic.Anthropic:
        return anthropic.Anthropic(base_url=self.anthropic_url, api_key=self.key)


@pytest.fixture
def user(proxy: RunningProxy, books: Books) -> User:
    name, key = books.user("5")
    return User(name, key, f"{proxy.url}/v1/openai", f"{proxy.url}/v1/anthropic", books)


def cost(*amounts: tuple[int, str]) -> int:
    """Nano-USD of tokens at dollars per million, rounded up once."""
    return ceil(sum(tokens * Fraction(rate) * 1000 for tokens, rate in amounts))


def gpt_4o(usage: Any) -> int:
    cached = usage.prompt_tokens_details.cached_tokens
    fresh = usage.prompt_tokens - cached
    return cost((fresh, "2.50"), (cached, "1.25"), (usage.completion_tokens, "10"))


def sonnet(usage: Any) -> int:
    written = usage.cache_creation
    return cost(
        (usage.input_tokens, "2"),
        (usage.cache_read_input_tokens or 0, "0.10"),
        (written.ephemeral_5m_input_tokens if written else 0, "2.50"),
        (written.ephemeral_1h_input_tokens if written else 0, "4"),
        (usage.output_tokens, "10"),
    )


def asked(text: Any) -> Any:
    return [{"role": "user", "content": text}]


def test_an_openai_chat_answers_and_costs_what_its_usage_says(user: User) -> None:
    with user.gpt() as client:
        answer = client.chat.completions.create(model="gpt-4o", messages=asked("Tell me a joke"))
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0
    assert user.paid() == gpt_4o(answer.usage)


def test_an_openai_stream_yields_what_the_plain_answer_says_and_no_usage_unasked(
    user: User,
) -> None:
    with user.gpt() as client:
        plain = client.chat.completions.create(model="gpt-4o", messages=asked("Write a haiku"))
        for_plain = user.paid()
        chunks = list(
            client.chat.completions.create(
                model="gpt-4o", messages=asked("Write a haiku"), stream=True
            )
        )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == plain.choices[0].message.content
    assert all(chunk.usage is None for chunk in chunks)
    assert user.paid() == 2 * for_plain


def test_an_openai_stream_ends_with_usage_when_asked(user: User) -> None:
    with user.gpt() as client:
        *_, last = client.chat.completions.create(
            model="gpt-4o",
            messages=asked("hello"),
            stream=True,
            stream_options={"include_usage": True},
        )
    assert last.choices == []
    assert last.usage is not None
    assert user.paid() == gpt_4o(last.usage)


def test_openais_stream_helper_runs_to_its_final_completion(user: User) -> None:
    with (
        user.gpt() as client,
        client.chat.completions.stream(model="gpt-4o", messages=asked("hello")) as stream,
    ):
        final = stream.get_final_completion()
    assert final.choices[0].finish_reason == "stop"
    assert user.paid() > 0


def test_async_clients_stream_side_by_side(user: User) -> None:
    async def gpt_text(client: openai.AsyncOpenAI, question: str) -> str:
        stream = await client.chat.completions.create(
            model="gpt-4o", messages=asked(question), stream=True
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def claude_text(client: anthropic.AsyncAnthropic, question: str) -> str:
        async with client.messages.stream(
            model="claude-sonnet-5-5", max_tokens=500, messages=asked(question)
        ) as stream:
            return "".join([text async for text in stream.text_stream])

    async def both() -> list[str]:
        async with (
            openai.AsyncOpenAI(base_url=user.openai_url, api_key=user.key) as gpt,
            anthropic.AsyncAnthropic(base_url=user.anthropic_url, api_key=user.key) as claude,
        ):
            questions = [f"Write {words} words" for words in (5, 50, 200)]
            calls = [gpt_text(gpt, question) for question in questions]
            calls += [claude_text(claude, question) for question in questions]
            return await asyncio.gather(*calls)

    assert [len(text.split()) for text in asyncio.run(both())] == [5, 50, 200, 5, 50, 200]
    assert user.paid() > 0
    assert [row["basis"] for row in user.books.rows(user.name)] == ["usage"] * 6


def test_cached_prompt_tokens_cost_the_cached_rate(user: User) -> None:
    with user.gpt() as client:
        prompts = [LONG + "one", LONG + "two"]
        first, second = (
            client.chat.completions.create(model="gpt-4o", messages=asked(prompt)).usage
            for prompt in prompts
        )
    assert first is not None
    assert second is not None
    assert second.prompt_tokens_details is not None
    assert second.prompt_tokens_details.cached_tokens == 2048
    assert user.paid() == gpt_4o(first) + gpt_4o(second)
    assert gpt_4o(second) < gpt_4o(first)
    usage = json.loads(user.books.rows(user.name)[-1]["usage"])
    assert usage["legs"][0]["cache_read"] == 2048


@pytest.mark.parametrize("is_stream", [False, True])
def test_reasoning_tokens_are_paid_as_output_and_shown(user: User, is_stream: bool) -> None:
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    with user.gpt() as client:
        create: Any = client.chat.completions.create
        answer = create(
            model="gpt-5-mini", messages=asked("hello"), **(options if is_stream else {})
        )
        usage = list(answer)[-1].usage if is_stream else answer.usage
    reasoning = usage.completion_tokens_details.reasoning_tokens
    assert 0 < reasoning < usage.completion_tokens
    assert user.paid() == cost((usage.prompt_tokens, "0.25"), (usage.completion_tokens, "2"))
    row = json.loads(user.books.rows(user.name)[-1]["usage"])
    assert row["legs"][0]["reasoning"] == reasoning


def test_an_anthropic_message_answers_and_costs_what_its_usage_says(user: User) -> None:
    with user.claude() as client:
        answer = client.messages.create(
            model="claude-sonnet-5-5", max_tokens=500, messages=asked("Tell me a joke")
        )
    assert answer.content[0].type == "text"
    assert answer.usage.output_tokens > 0
    assert user.paid() == sonnet(answer.usage)


def test_an_anthropic_stream_ends_with_the_usage_that_is_paid(user: User) -> None:
    with (
        user.claude() as client,
        client.messages.stream(
            model="claude-sonnet-5-5", max_tokens=500, messages=asked("Write a haiku")
        ) as stream,
    ):
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text
    assert final.stop_reason == "end_turn"
    assert user.paid() == sonnet(final.usage)


@pytest.mark.parametrize("ttl", ["5m", "1h"])
def test_anthropics_cache_writes_and_reads_cost_their_own_rates(user: User, ttl: str) -> None:
    mark = {"type": "ephemeral", "ttl": ttl}
    prefix = {"type": "text", "text": f"{ttl} {LONG}", "cache_control": mark}
    with user.claude() as client:
        written, read = (
            client.messages.create(
                model="claude-sonnet-5-5",
                max_tokens=100,
                messages=asked([prefix, {"type": "text", "text": question}]),
            ).usage
            for question in ("first", "again")
        )
    assert written.cache_creation is not None
    assert getattr(written.cache_creation, f"ephemeral_{ttl}_input_tokens") > 2000
    assert read.cache_read_input_tokens == written.cache_creation_input_tokens
    assert user.paid() == sonnet(written) + sonnet(read)


def test_the_sdks_list_the_priced_models(user: User) -> None:
    with user.gpt() as gpt, user.claude() as claude:
        assert {"gpt-4o", "gpt-5-mini"} <= {model.id for model in gpt.models.list()}
        listed = list(claude.models.list())
    assert "claude-sonnet-5-5" in [model.id for model in listed]
    assert {model.type for model in listed} == {"model"}
    assert user.paid() == 0


def test_the_raw_answer_names_its_request_and_its_cost(user: User) -> None:
    with user.gpt() as client:
        raw = client.chat.completions.with_raw_response.create(
            model="gpt-4o", messages=asked("hello")
        )
    usage = raw.parse().usage
    nano = Fraction(raw.headers["x-llmproxy-cost-usd"]) * 10**9
    assert nano == gpt_4o(usage) == user.paid()
    row = user.books.rows(user.name)[-1]
    assert raw.headers["x-llmproxy-request-id"] == "req_" + row["id"].hex()
