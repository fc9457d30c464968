"""Budgets of API keys: no more is spent, whatever runs at once, grows or is restarted."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import openai
import pytest

from llmproxy import accounts
from llmproxy.clock import Clock
from llmproxy.money import format_usd
from tests.proxy.conftest import INPUT, OUTPUT, STEP, running_site
from tests.proxy.helpers import CHAT, MESSAGES, Got, Site, Visitor, chat, message
from tests.proxy.test_growing import Paced, Pieces, dear_chat, seen_text
from tests.service.helpers import either
from tests.support.answers import openai_chat, openai_usage, plain
from tests.support.limits import Held, limit_key
from tests.support.waiting import wait_until

COST = 10 * 2500 + 20 * 10_000
ANSWER = openai_chat(usage=openai_usage(10, 20))


def assert_beyond(got: Got, period: str = "daily") -> None:
    error = got.error()
    assert (got.status, error["type"], error["code"]) == (402, "billing_error", "budget_exceeded")
    assert error["budget"] == period
    assert error["message"].startswith(f"The {period} budget of this API key does not cover")
    # It resets tomorrow: nobody should try again by themselves.
    assert got.header("x-should-retry") == b"false"
    assert got.header("retry-after") is None


def hold_of(site: Site) -> int:
    """What a chat of ours holds."""
    site.stub.handle = plain(ANSWER)
    visitor = site.visitor()
    assert site.ask(visitor, CHAT, chat()).status == 200
    hold: int = site.ended(visitor)["hold_nanousd"]
    return hold


def spent(site: Site, visitor: Visitor) -> int:
    site.books.settled_wallet(visitor.name)
    return sum(row["cost_nanousd"] for row in site.books.rows(visitor.name))


def test_what_is_spent_and_held_and_asked_for_must_fit(site: Site) -> None:
    hold = hold_of(site)
    ann = site.visitor()
    limit_key(site.books, ann.name, daily_budget_nanousd=hold + COST)
    assert [site.ask(ann, CHAT, chat()).status for _ in range(2)] == [200, 200]
    refused = site.ask(ann, CHAT, chat())
    assert_beyond(refused)
    error = refused.error()
    tomorrow = datetime.now(tz=UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    tomorrow += timedelta(days=1)
    assert {
        name: error[name] for name in ("needed_usd", "budget_usd", "spent_usd", "held_usd")
    } == {
        "needed_usd": format_usd(hold),
        "budget_usd": format_usd(hold + COST),
        "spent_usd": format_usd(2 * COST),
        "held_usd": "0.00",
    }
    assert datetime.fromisoformat(error["resets_at"]) == tomorrow
    # What would fit does.
    fitting = error["max_tokens_affordable"]
    assert 0 < fitting < 100
    assert site.ask(ann, CHAT, chat(max_tokens=fitting + 1)).status == 402
    assert site.ask(ann, CHAT, chat(max_tokens=fitting)).status == 200
    # One nano-dollar below: refused; exactly as much: served; another key: not concerned.
    for budget, status in ((hold - 1, 402), (hold, 200)):
        bob = site.visitor()
        limit_key(site.books, bob.name, daily_budget_nanousd=budget)
        assert site.ask(bob, CHAT, chat()).status == status


def test_fifty_at_once_with_money_for_five(site: Site) -> None:
    hold = hold_of(site)
    ann = site.visitor()
    limit_key(site.books, ann.name, monthly_budget_nanousd=6 * hold - 1)
    site.stub.handle = held = Held(ANSWER)
    with ThreadPoolExecutor(50) as threads:
        asked = [threads.submit(site.ask, ann, CHAT, chat()) for _ in range(50)]
        wait_until(lambda: sum(each.done() for each in asked) == 45)
        held.let_go()
        answers = [each.result(20) for each in asked]
    assert sorted(each.status for each in answers) == [200] * 5 + [402] * 45
    for each in answers:
        if each.status == 402:
            assert_beyond(each, "monthly")
    assert held.begun == 5
    assert spent(site, ann) == 5 * COST


def test_a_budget_is_spent_to_the_end_and_never_beyond(site: Site) -> None:
    """Answers cost as much as they hold in output: what is left shrinks to less than one needs."""
    ann = site.visitor()
    site.stub.handle = plain(openai_chat(usage=openai_usage(600, 100)))
    budget = 20_000_000
    limit_key(site.books, ann.name, daily_budget_nanousd=budget)
    with ThreadPoolExecutor(8) as threads:
        statuses = [
            each.status for each in threads.map(lambda _: site.ask(ann, CHAT, chat()), range(40))
        ]
    assert set(statuses) == {200, 402}
    cost = 600 * 2500 + 100 * 10_000
    assert spent(site, ann) == statuses.count(200) * cost <= budget
    assert budget - spent(site, ann) < cost + 1_000_000


def test_what_is_released_is_there_again(site: Site) -> None:
    hold = hold_of(site)
    ann = site.visitor()
    limit_key(site.books, ann.name, daily_budget_nanousd=hold)
    site.stub.handle = plain(b'{"error": {"message": "no"}}', status=400)
    for _ in range(3):
        assert site.ask(ann, CHAT, chat()).status == 400
    # Refused for another reason once it was reserved: the credit.
    poor = Visitor(*site.books.user("0.0001"))
    limit_key(site.books, poor.name, daily_budget_nanousd=hold)
    for _ in range(3):
        assert site.ask(poor, CHAT, chat()).error()["code"] == "insufficient_credit"
    site.books.credit(poor.name, "1")
    site.stub.handle = plain(ANSWER)
    for each in (ann, poor):
        assert site.ask(each, CHAT, chat()).status == 200


def test_a_request_without_a_maximum_gets_what_the_budget_covers(site: Site) -> None:
    site.stub.handle = plain(ANSWER)
    ann = site.visitor()
    limit_key(site.books, ann.name, daily_budget_nanousd=30_000_000)
    body = chat().replace(b'"max_tokens":100,', b"")
    got = site.ask(ann, CHAT, body)
    assert got.status == 200
    fitted = int(got.header("x-llmproxy-max-tokens") or 0)
    assert 2000 < fitted < 3000
    assert site.last_request().json()["max_completion_tokens"] == fitted
    assert site.ended(ann)["hold_nanousd"] <= 30_000_000


def test_a_stream_ends_where_the_budget_does(dear: Site) -> None:
    dear.stub.handle = paced = Paced(streams=1)
    ann = dear.visitor()
    budget = 3 * STEP * OUTPUT
    limit_key(dear.books, ann.name, daily_budget_nanousd=budget)
    got = paced.take(dear, ann)
    name, data = got.last_event()
    assert (name, data["error"]["code"]) == (b"error", "budget_exceeded")
    assert b"[DONE]" not in got.body
    row = dear.ended(ann)
    assert row["reason"] == "the budget of the API key ended before the answer"
    assert 0 < row["cost_nanousd"] <= row["hold_nanousd"] <= budget
    # The budget was used: two steps of output were passed on at least.
    assert seen_text(got) >= 2 * STEP
    assert dear.ask(ann, CHAT, dear_chat()).error()["code"] == "budget_exceeded"


def test_streams_that_race_for_the_last_of_a_budget_stay_within_it(dear: Site) -> None:
    dear.stub.handle = paced = Paced(streams=3)
    ann = dear.visitor()
    budget = 6 * STEP * OUTPUT
    limit_key(dear.books, ann.name, monthly_budget_nanousd=budget)
    with ThreadPoolExecutor(3) as threads:
        answers = [threads.submit(paced.take, dear, ann, number) for number in range(3)]
        codes = [answer.result(30).last_event()[1]["error"]["code"] for answer in answers]
    assert codes == ["budget_exceeded"] * 3
    assert 0 < spent(dear, ann) <= budget


def test_a_stream_within_its_budget_gives_back_what_it_did_not_need(dear: Site) -> None:
    dear.stub.handle = pieces = Pieces(at_once=2, later=20)
    ann = dear.visitor()
    budget = 12 * STEP * OUTPUT
    limit_key(dear.books, ann.name, daily_budget_nanousd=budget)
    pieces_cost = 10 * INPUT + 550 * OUTPUT
    for count in (1, 2, 3):
        dear.stub.handle = pieces = Pieces(at_once=2, later=20)
        with dear.send(ann, CHAT, dear_chat()) as client:
            client.recv_head()
            pieces.let_go()
            client.body()
            assert client.clean_end
        assert spent(dear, ann) == count * pieces_cost


def test_a_budget_survives_a_restart_and_a_kill(tmp_path: Path) -> None:
    with running_site(tmp_path, {}) as site:
        hold = hold_of(site)
        ann = site.visitor()
        limit_key(site.books, ann.name, daily_budget_nanousd=hold + COST)
        for _ in range(2):
            assert site.ask(ann, CHAT, chat()).status == 200
        for end in (site.proxy.stop, site.proxy.kill):
            end()
            site.proxy.start()
            refused = site.ask(ann, CHAT, chat())
            assert_beyond(refused)
            assert refused.error()["spent_usd"] == format_usd(2 * COST)
            assert refused.error()["held_usd"] == "0.00"


def test_a_request_that_a_kill_has_ended_counts_as_it_was_charged(tmp_path: Path) -> None:
    with running_site(tmp_path, {}) as site:
        ann = site.visitor()
        limit_key(site.books, ann.name, daily_budget_nanousd=10**9)
        site.stub.handle = Pieces(at_once=30)
        with site.send(ann, CHAT, chat(stream=True, max_tokens=2000)) as client:
            client.recv_head()
            noted = "SELECT max(seen_cost_nanousd) FROM holds"
            wait_until(lambda: site.books.count(noted) > 1_500_000, within_s=15)
            site.proxy.kill()
        site.proxy.start()
        seen = site.ended(ann)["cost_nanousd"]
        limit_key(site.books, ann.name, daily_budget_nanousd=seen)
        refused = site.ask(ann, CHAT, chat())
        assert_beyond(refused)
        assert refused.error()["spent_usd"] == format_usd(seen)


def test_a_limit_set_while_requests_run_counts_what_they_hold_and_cost(site: Site) -> None:
    hold = hold_of(site)
    ann = site.visitor()
    site.stub.handle = held = Held(ANSWER)
    with site.send(ann, CHAT, chat()) as one:
        wait_until(lambda: held.begun == 1)
        limit_key(site.books, ann.name, daily_budget_nanousd=hold + COST)
        refused = site.ask(ann, CHAT, chat())
        assert_beyond(refused)
        assert refused.error()["held_usd"] == format_usd(hold)
        held.let_go()
        assert site.take(one).status == 200
    assert site.ask(ann, CHAT, chat()).status == 200
    refused = site.ask(ann, CHAT, chat())
    assert refused.error()["spent_usd"] == format_usd(2 * COST)


def test_an_operator_raises_lifts_and_sets_a_budget_again(site: Site) -> None:
    hold = hold_of(site)
    ann = site.visitor()
    limit_key(site.books, ann.name, daily_budget_nanousd=hold)
    assert [site.ask(ann, CHAT, chat()).status for _ in range(2)] == [200, 402]
    limit_key(site.books, ann.name, daily_budget_nanousd=hold + COST)
    assert [site.ask(ann, CHAT, chat()).status for _ in range(2)] == [200, 402]
    limit_key(site.books, ann.name, daily_budget_nanousd=None)
    assert site.ask(ann, CHAT, chat()).status == 200
    # What was spent without it counts too.
    limit_key(site.books, ann.name, daily_budget_nanousd=hold + 2 * COST)
    refused = site.ask(ann, CHAT, chat())
    assert refused.error()["spent_usd"] == format_usd(3 * COST)
    limit_key(site.books, ann.name, daily_budget_nanousd=hold + 3 * COST)
    assert site.ask(ann, CHAT, chat()).status == 200


def test_a_key_that_replaces_another_goes_on_with_its_budget(site: Site) -> None:
    hold = hold_of(site)
    ann = site.visitor()
    limit_key(site.books, ann.name, daily_budget_nanousd=hold)
    assert site.ask(ann, CHAT, chat()).status == 200
    with site.books.write() as tx:
        owner = accounts.find_user(tx, ann.name)
        key = accounts.rotate_api_key(
            tx, owner, "test", now_ms=Clock().now_ms(), overlap_ms=3_600_000
        )
    for each in (ann, Visitor(ann.name, key)):
        assert_beyond(site.ask(each, CHAT, chat()))


def test_what_a_replaced_key_began_without_limits_counts_for_those_of_its_heir(site: Site) -> None:
    hold = hold_of(site)
    ann = site.visitor()
    site.stub.handle = held = Held(ANSWER)
    with site.send(ann, CHAT, chat()) as one:
        wait_until(lambda: held.begun == 1)
        with site.books.write() as tx:
            owner = accounts.find_user(tx, ann.name)
            heir = Visitor(
                ann.name, accounts.rotate_api_key(tx, owner, "test", now_ms=Clock().now_ms())
            )
        limit_key(site.books, ann.name, daily_budget_nanousd=hold + COST)
        assert site.ask(ann, CHAT, chat()).status == 401
        assert site.ask(heir, CHAT, chat()).error()["held_usd"] == format_usd(hold)
        held.let_go()
        assert site.take(one).status == 200
    assert site.ask(heir, CHAT, chat()).status == 200
    error = site.ask(heir, CHAT, chat()).error()
    assert (error["spent_usd"], error["held_usd"]) == (format_usd(2 * COST), "0.00")


def test_the_sdk_shows_the_refusal_and_does_not_try_again(site: Site) -> None:
    site.stub.handle = either
    ann = site.visitor()
    # A second try would be told of the other limit.
    limit_key(site.books, ann.name, daily_budget_nanousd=1, requests_per_minute=1)
    with (
        openai.OpenAI(base_url=f"{site.proxy.url}/v1/openai", api_key=ann.key) as client,
        pytest.raises(openai.APIStatusError, match="daily budget of this API key") as raised,
    ):
        client.chat.completions.create(
            model="gpt-4o", max_tokens=10, messages=[{"role": "user", "content": "hi"}]
        )
    assert raised.value.code == "budget_exceeded"
    assert site.ask(ann, CHAT, chat()).status == 429


def test_a_repeat_hears_of_the_first_request_whatever_the_budget_has_left(site: Site) -> None:
    hold = hold_of(site)
    ann = site.visitor()
    limit_key(site.books, ann.name, daily_budget_nanousd=hold)
    once = {"idempotency-key": "once"}
    assert site.ask(ann, CHAT, chat(), once).status == 200
    repeat = site.ask(ann, CHAT, chat(), once)
    assert (repeat.status, repeat.error()["first_cost_usd"]) == (409, format_usd(COST))
    assert_beyond(site.ask(ann, CHAT, chat(), {"idempotency-key": "twice"}))


def test_free_requests_need_no_budget(site: Site) -> None:
    site.stub.handle = plain(b'{"input_tokens": 5}')
    ann = site.visitor()
    limit_key(site.books, ann.name, daily_budget_nanousd=0)
    assert site.ask(ann, "/v1/anthropic/messages/count_tokens", message()).status == 200
    assert_beyond(site.ask(ann, MESSAGES, message()))


def test_a_client_that_leaves_early_gives_back_what_was_reserved(site: Site) -> None:
    hold = hold_of(site)
    ann = site.visitor()
    limit_key(site.books, ann.name, daily_budget_nanousd=hold + COST)
    site.stub.handle = held = Held(ANSWER)
    with site.send(ann, CHAT, chat()):
        wait_until(lambda: held.begun == 1)
    held.let_go()
    assert spent(site, ann) == COST
    assert site.ask(ann, CHAT, chat()).status == 200
    assert_beyond(site.ask(ann, CHAT, chat()))
