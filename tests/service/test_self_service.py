"""What users see of themselves with their key: `GET /v1/key` and `GET /v1/usage`."""

import csv
import io
import json
import re
import subprocess
import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from llmproxy import accounts, limit_store, reports
from llmproxy.clock import Clock, arrival_ms
from llmproxy.money import format_usd
from llmproxy.server.usage_query import PARAMETERS
from tests.service.helpers import CHAT, MESSAGES, Books, ask, bearer, chat_body
from tests.support.answers import openai_chat, openai_usage, plain
from tests.support.limits import limit_key, limit_user
from tests.support.proxy import Answered, RunningProxy
from tests.support.raw_client import RawClient
from tests.support.stub_provider import StubProvider
from tests.support.waiting import wait_until

API_PAGE = Path(__file__).parents[2] / "docs" / "api.md"
ANTHROPIC_BODY = {
    "model": "claude-sonnet-4-5",
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "hi"}],
}


@pytest.fixture
def user(proxy: RunningProxy, books: Books, stub: object) -> tuple[str, str]:
    """A user with three chats, one message and one refusal; another one with as many."""
    name, key = books.user(multiplier_micro=1_500_000)
    _, other = books.user()
    for each in (key, other):
        for _ in range(3):
            assert ask(proxy.port, "POST", CHAT, chat_body(), bearer(each)).status == 200
        assert ask(proxy.port, "POST", MESSAGES, ANTHROPIC_BODY, bearer(each)).status == 200
        refused = ask(proxy.port, "POST", CHAT, chat_body(model="=1+1"), bearer(each))
        assert refused.status == 400
    books.settled_wallet(name)
    return name, key


def get(proxy: RunningProxy, path: str, key: str, **headers: str) -> Answered:
    return ask(proxy.port, "GET", path, b"", bearer(key) | headers)


def page(proxy: RunningProxy, query: str, key: str) -> dict[str, Any]:
    answered = get(proxy, f"/v1/usage?{query}", key)
    assert answered.status == 200, answered.body
    return answered.json()  # type: ignore[no-any-return]


def test_the_key_tells_what_its_user_has_and_has_spent(
    proxy: RunningProxy, books: Books, user: tuple[str, str]
) -> None:
    name, key = user
    rows = [row for row in books.rows(name) if row["state"] == "settled"]
    spent = sum(row["cost_nanousd"] for row in rows)
    assert spent > 0
    answered = get(proxy, "/v1/key", key)
    assert answered.headers["content-type"] == "application/json"
    assert answered.headers["cache-control"] == "no-store"
    found = answered.json()
    created_at = datetime.fromisoformat(found.pop("created_at"))
    assert abs(datetime.now(tz=UTC) - created_at) < timedelta(minutes=10)
    tokens = page(proxy, "group=day", key)["data"][0]
    assert found == {
        "name": "test",
        "user": name,
        "balance_usd": format_usd(5_000_000_000 - spent),
        "held_usd": "0.00",
        "available_usd": format_usd(5_000_000_000 - spent),
        "rate_multiplier": "1.5",
        "usage_today": {
            "requests": 4,
            "tokens_in": tokens["tokens_in"],
            "tokens_out": tokens["tokens_out"],
            "cost_usd": format_usd(spent),
            "charged_usd": format_usd(spent),
        },
        "limits": {},
        "limits_used": {},
        "user_limits": {},
        "suspended": None,
        "expires_at": None,
    }


def test_the_key_tells_its_limits_and_what_is_used_of_them(
    proxy: RunningProxy, books: Books, stub: StubProvider
) -> None:
    stub.handle = plain(openai_chat(usage=openai_usage(10, 20)))
    name, key = books.user()
    networks = (ip_network("127.0.0.0/8"),)
    limits_id = limit_key(
        books,
        name,
        requests_per_minute=60,
        daily_budget_nanousd=5_000_000_000,
        models=("gpt-4o",),
        networks=networks,
    )
    limit_user(books, name, concurrent_max=8)
    # A request that meets the change on its way is admitted anew, and leaves two rows.
    wait_until(lambda: get(proxy, "/v1/key", key).json()["user_limits"] == {"concurrent_max": 8})
    assert proxy.post(CHAT, chat_body(), key).status == 200
    books.settled_wallet(name)
    found = get(proxy, "/v1/key", key).json()
    assert found["limits"] == {
        "requests_per_minute": 60,
        "daily_budget_usd": "5.00",
        "models": ["gpt-4o"],
        "networks": ["127.0.0.0/8"],
    }
    assert found["user_limits"] == {"concurrent_max": 8}
    cost = format_usd(10 * 2500 + 20 * 10_000)
    assert found["limits_used"] == {
        "requests_last_minute": 1,
        "tokens_last_minute": 30,
        "running": 0,
        "spent_today_usd": cost,
        "spent_month_usd": cost,
    }
    # What only the speed of spending needs is only looked for where that is limited.
    limit_key(books, name, spend_per_hour_nanousd=10**9)
    used = get(proxy, "/v1/key", key).json()["limits_used"]
    assert used["spent_10_minutes_usd"] == cost
    # A suspended key may still ask why.
    with books.write() as tx:
        limit_store.suspend(tx, limits_id, "too fast", Clock().now_ms())
    wait_until(lambda: get(proxy, "/v1/key", key).json()["suspended"] == "too fast")


def test_rows_come_newest_first_page_by_page_and_only_ones_own(
    proxy: RunningProxy, books: Books, user: tuple[str, str]
) -> None:
    name, key = user
    seen: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        found = page(proxy, f"limit=2&cursor={cursor}", key)
        assert len(found["data"]) <= 2
        seen += found["data"]
        cursor = found["next_cursor"]
    assert [row["id"] for row in seen] == [
        f"req_{row['id'].hex()}" for row in reversed(books.rows(name))
    ]
    assert {row["user"] for row in seen} == {name}
    with books.database.read() as tx:
        user_id = accounts.find_user(tx, name).id
        wanted = reports.RequestFilter(user_id=user_id)
        assert seen == [row.as_json() for row in reports.list_requests(tx, wanted, limit=-1)]


def test_sums_are_those_of_the_rows(
    proxy: RunningProxy, books: Books, user: tuple[str, str]
) -> None:
    name, key = user
    rows = [row for row in page(proxy, "", key)["data"] if row["state"] != "refused"]
    cost = format_usd(sum(row["cost_nanousd"] for row in books.rows(name)))
    tokens_in = sum(row["usage"]["input"] + row["usage"]["cache_read"] for row in rows)
    tokens_out = sum(row["usage"]["output"] for row in rows)
    (day,) = page(proxy, "group=day", key)["data"]
    today = f"{datetime.now(tz=UTC):%Y-%m-%d}"
    assert day == {
        "day": today,
        "requests": 4,
        "tokens_in": tokens_in,
        "tokens_out": tokens_out,
        "cost_usd": cost,
        "charged_usd": cost,
    }
    models = page(proxy, "group=model", key)["data"]
    assert [(row["model"], row["requests"]) for row in models] == [
        ("anthropic/claude-sonnet-4-5", 1),
        ("openai/gpt-4o", 3),
    ]
    first = page(proxy, "group=endpoint&limit=1", key)
    second = page(proxy, f"group=endpoint&limit=1&cursor={first['next_cursor']}", key)
    assert first["data"][0]["endpoint"] == "anthropic/messages" == first["next_cursor"]
    assert second["data"][0]["endpoint"] == "openai/chat/completions"
    assert second["next_cursor"] is None


def test_a_span_leaves_out_what_came_before_and_after(
    proxy: RunningProxy, user: tuple[str, str]
) -> None:
    _, key = user
    newest, second, _, fourth, oldest = page(proxy, "", key)["data"]
    between = page(proxy, f"from={oldest['created_at']}&to={second['created_at']}", key)["data"]
    ids = {row["id"] for row in between}
    assert fourth["id"] in ids
    assert newest["id"] not in ids
    assert page(proxy, "from=2026-01-01&to=2026-01-02", key)["data"] == []
    tomorrow = f"{datetime.now(tz=UTC) + timedelta(days=1):%Y-%m-%d}"
    assert page(proxy, f"from={tomorrow}&to=2999-01-01T00:00:00%2B02:00", key)["data"] == []


@pytest.mark.parametrize("by_header", [False, True])
def test_csv_is_a_table_that_no_spreadsheet_runs(
    proxy: RunningProxy, user: tuple[str, str], by_header: bool
) -> None:
    _, key = user
    path = "/v1/usage?limit=4" if by_header else "/v1/usage?limit=4&format=csv"
    answered = get(proxy, path, key, **({"accept": "text/csv"} if by_header else {}))
    assert answered.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(answered.body.decode())))
    assert answered.headers["x-llmproxy-next-cursor"] == rows[-1]["id"]
    assert [row["model"] for row in rows] == ["'=1+1", "claude-sonnet-4-5", "gpt-4o", "gpt-4o"]
    json_rows = page(proxy, "limit=4", key)["data"]
    assert [row["cost_usd"] for row in rows] == [row["cost_usd"] for row in json_rows]
    assert int(rows[1]["usage_output"]) == json_rows[1]["usage"]["output"] > 0
    grouped = get(proxy, "/v1/usage?group=day&format=csv", key).body.decode().splitlines()
    assert grouped[0] == "day,requests,tokens_in,tokens_out,cost_usd,charged_usd"
    assert len(grouped) == 2


@pytest.mark.parametrize(
    ("query", "param", "advice"),
    [
        ("from=yesterday", "from", "such as 2026-11-23"),
        ("from=2026-02-30", "from", "such as 2026-11-23"),
        ("from=20261123", "from", "such as 2026-11-23"),
        ("to=2026-11-23T00:00:00+02:00", "to", "%2B"),
        ("from=2026-11-23&to=2026-11-23", "from", "before `to`"),
        ("from=2026-11-23&from=2026-11-22", "from", "once"),
        ("group=user", "group", "none, day, model, endpoint"),
        ("format=xml", "format", "json, csv"),
        ("limit=0", "limit", "from 1 to 1000"),
        ("limit=1001", "limit", "from 1 to 1000"),
        ("limit=%C2%B2", "limit", "from 1 to 1000"),
        ("cursor=x", "cursor", "next_cursor"),
        ("user=bob", "user", "Known: from, to, group, format, limit, cursor"),
        ("%ff=1", None, "cannot be read"),
        ("&".join(["limit=1"] * 30), None, "cannot be read"),
    ],
)
def test_wrong_parameters_are_told_what_would_be_right(
    proxy: RunningProxy, books: Books, query: str, param: str | None, advice: str
) -> None:
    _, key = books.user()
    answered = get(proxy, f"/v1/usage?{query}", key)
    error = answered.json()["error"]
    assert (answered.status, error["code"], error["param"]) == (400, "invalid_request", param)
    assert advice in error["message"]


@pytest.mark.parametrize("path", ["/v1/key", "/v1/usage"])
def test_nobody_gets_in_without_a_live_key(proxy: RunningProxy, books: Books, path: str) -> None:
    assert ask(proxy.port, "GET", path).status == 401
    assert get(proxy, path, "llmp_wrong").json()["error"]["code"] == "invalid_api_key"
    name, key = books.user()
    assert get(proxy, path, key).status == 200
    for place in ("x-api-key", "api-key", "x-goog-api-key"):
        assert ask(proxy.port, "GET", path, b"", {place: key}).status == 200
    with books.write() as tx:
        user = accounts.find_user(tx, name)
        accounts.revoke_api_key(tx, user, "test", now_ms=Clock().now_ms())
    wait_until(lambda: get(proxy, path, key).status == 401)


@pytest.mark.parametrize("path", ["/v1/key", "/v1/usage"])
def test_other_methods_are_refused_and_head_has_no_body(
    proxy: RunningProxy, books: Books, path: str
) -> None:
    _, key = books.user()
    posted = ask(proxy.port, "POST", path, b"{}", bearer(key))
    assert (posted.status, posted.headers["allow"]) == (405, "GET, HEAD")
    headed = ask(proxy.port, "HEAD", path, b"", bearer(key))
    assert (headed.status, headed.body) == (200, b"")
    assert int(headed.headers["content-length"]) > 0


@pytest.mark.parametrize(
    "body", [chat_body(), chat_body(model="unknown"), {"model": "x", "input": "hi"}]
)
def test_a_request_counts_from_when_it_came_however_long_its_body_took(
    proxy: RunningProxy, books: Books, stub: object, body: dict[str, object]
) -> None:
    """Whether it is paid for, refused or free: its day is that which its id begins with."""
    name, key = books.user()
    path = "/v1/openai/moderations" if "input" in body else CHAT
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
    with RawClient(proxy.port) as client:
        client.send(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data[:5])
        time.sleep(0.05)
        client.send(data[5:])
        client.recv_head()
    wait_until(lambda: len(books.rows(name)) == 1)
    (row,) = books.rows(name)
    assert row["created_at_ms"] == arrival_ms(row["id"])
    with books.database.read() as tx:
        held = tx.execute("SELECT created_at_ms FROM holds WHERE id = ?", (row["id"],)).fetchall()
    assert [each[0] for each in held] in ([], [row["created_at_ms"]])


def test_a_damaged_row_spoils_no_sum(
    proxy: RunningProxy, books: Books, user: tuple[str, str]
) -> None:
    name, key = user
    first = books.rows(name)[0]
    change = "UPDATE requests SET usage = ? WHERE id = ?"
    with books.write() as tx:
        tx.execute(change, ("{broken", first["id"]))
    try:
        whole = page(proxy, "group=day", key)["data"]
        # A part of a day is summed from the rows.
        midnight = datetime.now(tz=UTC).replace(hour=0, minute=0, second=0, microsecond=1000)
        part = page(proxy, f"group=day&from={midnight:%Y-%m-%dT%H:%M:%S.%fZ}", key)["data"]
        assert [day["requests"] for day in (*whole, *part)] == [4, 4]
        assert part[0]["tokens_in"] < whole[0]["tokens_in"]
        assert get(proxy, "/v1/key", key).json()["usage_today"]["requests"] == 4
    finally:
        with books.write() as tx:
            tx.execute(change, (first["usage"], first["id"]))


@pytest.mark.parametrize(
    "command", re.findall(r"^curl (?:.*\\\n)*.*$", API_PAGE.read_text(), re.MULTILINE)
)
def test_every_curl_of_the_page_works_as_printed(
    proxy: RunningProxy, user: tuple[str, str], tmp_path: Path, command: str
) -> None:
    done = subprocess.run(
        [
            "bash",
            "-euo",
            "pipefail",
            "-c",
            command.replace("127.0.0.1:8000", f"127.0.0.1:{proxy.port}"),
        ],
        env=proxy.environ | {"LLMPROXY_KEY": user[1]},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    (line,) = done.stdout.splitlines() if ".csv" not in command else ("{}",)
    assert "error" not in json.loads(line)
    for written in tmp_path.glob("*.csv"):
        assert len(written.read_text().splitlines()) > 1


def test_the_page_shows_every_field_and_parameter(
    proxy: RunningProxy, user: tuple[str, str]
) -> None:
    text = API_PAGE.read_text()
    fields = [*get(proxy, "/v1/key", user[1]).json(), *PARAMETERS]
    assert [name for name in fields if f"`{name}`" not in text] == []
