"""The operator's list of users: found by name, in pages that stay small."""

import re

from llmproxy import accounts
from llmproxy.clock import Clock
from tests.dashboard.helpers import KEYS, Desk
from tests.dashboard.test_admin_users import USERS, page_of


def test_users_are_found_by_a_part_of_their_name_in_pages_of_fifty(desk: Desk) -> None:
    boss = desk.operator()
    with desk.books.write() as tx:
        for n in range(120):
            accounts.create_user(tx, f"zz-{n:03d}@school", now_ms=Clock().now_ms())

    def names(query: str) -> list[str]:
        html = boss.text(f"{USERS}?{query}")
        return re.findall(rf'<a href="{USERS}/\d+">([^<]*)</a>', html)

    assert names("q=ZZ-") == [f"zz-{n:03d}@school" for n in range(50)]
    assert names("q=zz-&page=3") == [f"zz-{n:03d}@school" for n in range(100, 120)]
    assert names("q=zz-&page=999") == names("q=zz-&page=3")
    assert names("q=zz-&page=x") == names("q=zz-")
    assert names("q=zz-007%40") == ["zz-007@school"]
    assert names("q=%25") == []
    html = boss.text(f"{USERS}?q=zz-&page=2")
    assert "51–100 of 120" in html
    assert f'href="{USERS}?page=3&amp;q=zz-"' in html
    assert boss.name in names(f"q={boss.name}")
    evil = boss.text(f"{USERS}?q=%22%3E%3Cscript%3E")
    assert "<script>" not in evil.replace("</head>", "").split("<body>")[1]


def test_pages_stay_small_with_a_thousand_users_and_all_that_one_can_have(desk: Desk) -> None:
    boss, ann = desk.operator(), desk.signed_in()
    now_ms = Clock().now_ms()
    with desk.books.write() as tx:
        for n in range(1000):
            name = f"a{n:04d}." + "long-name." * 5
            accounts.create_user(tx, name[:64], now_ms=now_ms)
        user = accounts.find_user(tx, ann.name)
        for n in range(60):
            accounts.create_api_key(tx, user, f"{n:02d} " + "W" * 61, now_ms=now_ms)
    page = page_of(desk, ann.name)
    for n in range(30):
        boss.submit(f"{page}/credit", amount="0.000000001", reason="r" * 300, once=f"many-{n}")
    for _ in range(10):
        desk.ask(ann.api_key, model="m" * 200)
    desk.books.settled_wallet(ann.name)
    for path in (USERS, f"{USERS}?page=2", page):
        answer = boss.get(path)
        assert answer.status_code == 200
        assert len(answer.content) < 50_000, path
    assert "(61 that work, 0 that ended)" in boss.text(page)
    assert ann.text(KEYS)
