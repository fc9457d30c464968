"""The operator's overview: what is wrong and where it is mended, what happens, what was spent."""

import re
from html import unescape

from llmproxy import accounts, key_pool, ledger, limit_store, reports
from llmproxy.clock import Clock, RequestIds
from llmproxy.dashboard.admin.spending import YESTERDAY_KEPT_MS, Spending
from llmproxy.dashboard.bars import DAYS, draw_bars
from llmproxy.reports import Totals
from tests.dashboard.helpers import Desk
from tests.service.helpers import either
from tests.support.answers import openai_chat
from tests.support.books import NOW_MS, Book
from tests.support.limits import limit_key
from tests.support.stub_provider import Out, SeenRequest
from tests.support.waiting import wait_until

ADMIN = "/dashboard/admin"
DAY_MS = 86_400_000


def notices(html: str, *words: str) -> list[tuple[str, str, str]]:
    """Return what needs attention: a word, the text, and where it leads; only these, or all."""
    found = re.findall(
        r'<p class="todo"><span class="state[^"]*">(.*?)</span> <span>(.*?)</span> '
        r'<a href="([^"]*)"',
        html,
    )
    return [
        (word, unescape(text), href.removeprefix(ADMIN))
        for word, text, href in found
        if word in words or not words
    ]


def facts(html: str) -> dict[str, str]:
    return dict(re.findall(r"<dt>([^<]*)</dt><dd[^>]*>([^<]*)</dd>", html))


def test_where_nothing_is_wrong_it_says_so(plain_desk: Desk) -> None:
    html = plain_desk.operator().text(ADMIN)
    assert notices(html) == []
    assert "Nothing. Providers and keys are in use" in html
    assert facts(html)["In 5 minutes"] == "0"
    check_what_happens_now_is_counted_by_how_it_was_answered(plain_desk)


def check_what_happens_now_is_counted_by_how_it_was_answered(desk: Desk) -> None:
    boss = desk.operator()
    ann = desk.signed_in()

    async def broken(request: SeenRequest, out: Out) -> None:
        del request
        await out.json(500, {"error": {"message": "no"}})

    for _ in range(3):
        assert desk.ask(ann.api_key) == 200
    assert desk.ask(ann.api_key, model="nothing") == 400
    desk.site.stub.handle = broken
    assert desk.ask(ann.api_key) == 500
    desk.books.settled_wallet(ann.name)
    html = boss.text(ADMIN)
    found = facts(html)
    assert (found["In 5 minutes"], found["Refused (4xx)"], found["Failed (5xx)"]) == ("5", "1", "1")
    assert '<p class="amount">0.02</p>' in html
    assert re.search(r"<strong>\$0\.000180</strong> · 4 requests · today \$0\.000180", html)
    assert f'<a href="{ADMIN}/users?q={ann.name}">{ann.name}</a>' in html
    assert f'<a href="{ADMIN}/providers/openai">openai</a>' in html


def test_paused_providers_and_keys_taken_out_lead_to_their_provider(own_desk: Desk) -> None:
    desk, boss, now_ms = own_desk, own_desk.operator(), Clock().now_ms()
    boss.submit(f"{ADMIN}/providers/anthropic/pause", reason="invoice unpaid")
    boss.submit(f"{ADMIN}/providers/openai/keys", secret="sk-another-0123456789", name="spare")
    with desk.books.write() as tx:
        key = key_pool.find_provider_key(tx, "openai", "key-1")
        key_pool.set_key_state(
            tx, key.id, "out_of_quota", reason="429: quota", actor="proxy", now_ms=now_ms
        )
    assert notices(boss.text(ADMIN)) == [
        ("paused", "anthropic: invoice unpaid", "/providers/anthropic"),
        ("out of quota", "key-1 of openai: 429: quota", "/providers/openai"),
    ]
    with desk.books.write() as tx:
        spare = key_pool.find_provider_key(tx, "openai", "spare")
        key_pool.set_key_state(tx, spare.id, "dead", reason=None, actor="proxy", now_ms=now_ms)
        key_pool.pause_provider(
            tx, "groq", reason="it fails: no connection", actor="proxy", now_ms=now_ms,
            until_ms=now_ms + 60_000,
        )  # fmt: skip
    assert notices(boss.text(ADMIN))[1:] == [
        ("paused", "groq: it fails: no connection; it is tried again by itself", "/providers/groq"),
        ("no active keys", "openai cannot be used", "/providers/openai"),
        ("out of quota", "key-1 of openai: 429: quota", "/providers/openai"),
        ("dead", "spare of openai: no reason is known", "/providers/openai"),
    ]
    for path in {path for _, _, path in notices(boss.text(ADMIN))}:
        assert boss.get(ADMIN + path).status_code == 200


def test_suspended_keys_lead_to_their_user_until_they_are_resumed_or_end(own_desk: Desk) -> None:
    desk, boss = own_desk, own_desk.operator()
    ann, ben, now_ms = desk.signed_in(), desk.signed_in(), Clock().now_ms()
    for visitor in (ann, ben):
        limits_id = limit_key(desk.books, visitor.name, "test", requests_per_minute=1000)
        with desk.books.write() as tx:
            limit_store.suspend(tx, limits_id, "spent too fast", now_ms)
    found = notices(boss.text(ADMIN), "suspended")
    assert {row[1] for row in found} == {
        f"API key test of {visitor.name}: spent too fast" for visitor in (ann, ben)
    }
    page = f"/users/{desk.user_id(ann.name)}"
    assert page in {row[2] for row in found}
    boss.submit(f"{ADMIN}{page}/keys/{ann.key_ids()['test']}/resume")
    assert [row[1] for row in notices(boss.text(ADMIN), "suspended")] == [
        f"API key test of {ben.name}: spent too fast"
    ]
    bens = f"{ADMIN}/users/{desk.user_id(ben.name)}/keys/{ben.key_ids()['test']}/revoke"
    assert boss.submit(bens).status_code == 303
    assert notices(boss.text(ADMIN), "suspended") == []


def test_models_without_a_price_are_named_by_how_often_they_were_asked_for(
    plain_desk: Desk,
) -> None:
    desk, boss = plain_desk, plain_desk.operator()
    ann = desk.signed_in()
    for model in ("gpt-nothing", "gpt-nothing", "gpt-other", *(f"m{n}" for n in range(9))):
        assert desk.ask(ann.api_key, model=model) == 400
    wait_until(lambda: len(desk.books.rows(ann.name)) == 12)

    def found() -> list[tuple[str, str, str]]:
        return notices(boss.text(ADMIN))

    assert found()[0] == (
        "no price", "openai/gpt-nothing was asked for 2 times and refused", "/catalog",
    )  # fmt: skip
    assert len(found()) == 6
    assert found()[-1] == ("no price", "and 6 more of the kind", "/catalog")
    desk.run(*("catalog", "set", "openai", "gpt-nothing", "--in-price", "1", "--out-price", "1"))
    assert desk.ask(ann.api_key, model="gpt-nothing") == 200
    assert found()[0][1] == "openai/gpt-other was asked for once and refused"


def test_shortfalls_and_holds_that_are_overdue_are_told(own_desk: Desk) -> None:
    desk, boss = own_desk, own_desk.operator()
    poor, key = desk.books.user(credit="0.01")

    async def much(request: SeenRequest, out: Out) -> None:
        del request
        await out.json(200, openai_chat(prompt_tokens=1_000_000))

    desk.site.stub.handle = much
    assert desk.ask(key) == 200
    desk.books.settled_wallet(poor)
    desk.site.stub.handle = either
    name, _ = desk.books.user()
    now_ms = Clock().now_ms()
    with desk.books.write() as tx:
        user = accounts.find_user(tx, name)
        (api_key,) = accounts.list_api_keys(tx, user, limit=-1)
        version, boot = tx.execute(
            "SELECT max(price_versions.id), max(boots.id) FROM price_versions, boots"
        ).fetchone()
        hold = ledger.Hold(
            id=RequestIds().new(now_ms - 2 * 3_600_000), wallet_id=user.wallet_id,
            api_key_id=api_key.id, price_version_id=version, boot_id=boot,
            endpoint="chat/completions", user_multiplier_micro=1_000_000,
            model_multiplier_micro=1_000_000, amount_nanousd=1_500_000_000,
            created_at_ms=now_ms - 2 * 3_600_000,
        )  # fmt: skip
        assert ledger.place_hold(tx, hold) is None
    html = boss.text(ADMIN)
    found = notices(html, "open holds", "shortfall")
    assert [(word, path) for word, _, path in found] == [
        ("open holds", "/ledger"), ("shortfall", "/ledger"),
    ]  # fmt: skip
    assert found[0][1].startswith("1 open for longer than any answer takes (3600 s)")
    assert re.fullmatch(r"\$2\.\d\d of 1 requests could not be paid by their users", found[1][1]), (
        found[1][1]
    )
    assert facts(html)["Running now"] == "1"
    assert facts(html)["They hold"] == "$1.50"


# --- without a server ------------------------------------------------------------------------


def add_day(book: Book, day: int, *, provider: str = "openai", charged: int = 1) -> None:
    with book.write() as tx:
        tx.execute(
            """INSERT INTO requests_by_day VALUES(
                 ?, ?, 1, ?, 'chat/completions', 'm', 2, 0, 0, 0, 0, 0, 0, 0, 0, ?, ?, 0)
               ON CONFLICT DO UPDATE SET requests = requests + 2,
                 charged_nanousd = charged_nanousd + excluded.charged_nanousd""",
            (book.user_id, day, provider, charged, charged),
        )


def test_sums_are_of_thirty_days_and_today_is_always_as_it_is_now(book: Book) -> None:
    today, spending = NOW_MS // DAY_MS, Spending()
    for age in (0, 1, 2, 29, 30):
        add_day(book, today - age, charged=10**age if age < 3 else 1000)
    add_day(book, today - 2, provider="groq", charged=7)
    with book.read() as tx:
        found = spending.read(tx, NOW_MS)
    assert found.providers == {"openai": Totals(8, 1111), "groq": Totals(2, 7)}
    assert found.users == {"ann": Totals(10, 1118)}
    assert len(found.days) == 4
    bars = draw_bars(found.days, NOW_MS)
    assert len(bars) == DAYS
    assert [bar.charged_nanousd for bar in bars[-3:]] == [107, 10, 1]
    assert bars[0].charged_nanousd == 1000
    assert [bar.height for bar in (bars[0], bars[1], bars[-1])] == [100.0, 0.0, 2.0]
    add_day(book, today, charged=5)
    add_day(book, today - 1, charged=90)
    with book.read() as tx:
        assert spending.read(tx, NOW_MS).users == {"ann": Totals(12, 1123)}
        later = spending.read(tx, NOW_MS + YESTERDAY_KEPT_MS)
    assert later.users == {"ann": Totals(14, 1213)}
    with book.read() as tx:
        tomorrow = spending.read(tx, NOW_MS + DAY_MS)
    assert tomorrow.users == {"ann": Totals(12, 213)}
    assert sum(bar.charged_nanousd for bar in draw_bars(tomorrow.days, NOW_MS + DAY_MS)) == 213


def test_what_is_asked_about_now_is_bounded_by_rows(book: Book) -> None:
    for _ in range(6):
        book.settled()
    now_ms = book.now_ms + 1000
    with book.read() as tx:
        recent = reports.recent_activity(tx, now_ms=now_ms, span_ms=60_000)
        assert [(each.provider, each.requests) for each in recent.providers] == [("openai", 6)]
        assert recent.span_ms == 60_000
        recent = reports.recent_activity(tx, now_ms=now_ms, span_ms=60_000, rows_max=3)
    assert [each.requests for each in recent.providers] == [3]
    assert recent.span_ms == 1002
