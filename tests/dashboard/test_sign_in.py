"""Signing in and out: a link works once, for 15 minutes; sessions end when they are told to."""

import hashlib
import re
import sqlite3
from contextlib import closing

import httpx
import pytest

from llmproxy import accounts, sessions
from llmproxy.clock import Clock
from llmproxy.dashboard.sign_in_attempts import COUNTED_MAX, SignInAttempts
from llmproxy.errors import RefusedError
from tests.dashboard.helpers import KEYS, Desk, secret_of
from tests.support.books import Book

PAGES = (
    *("/dashboard", KEYS, f"{KEYS}/new", f"{KEYS}/1", "/dashboard/live", "/dashboard/requests"),
    *("/dashboard/requests/1", "/dashboard/credit", "/dashboard/models", "/dashboard/models/a/b"),
    *(f"/dashboard/{name}.{end}" for name in ("requests", "credit", "models")
      for end in ("csv", "jsonl")),
)  # fmt: skip
NOW_MS = 1_800_000_000_000


def is_signed_in(visitor: httpx.Client) -> bool:
    return visitor.get("/dashboard").status_code == 200


def test_the_command_prints_a_link_that_signs_in_once(desk: Desk) -> None:
    name, _ = desk.books.user()
    link = desk.run("users", "login-link", name).strip()
    # The server that runs says where it listens: no setting of the command's has that port.
    assert re.fullmatch(re.escape(desk.site.proxy.url) + r"/dashboard/sign-in/[\w-]{43}", link)
    path = f"/dashboard/sign-in/{secret_of(link)}"

    first, second = desk.visitor(), desk.visitor()
    for _ in range(3):  # a preview asks as often as it likes
        assert f"Sign in as {name}" in first.text(path)
    assert first.head(path).status_code == 200
    assert not is_signed_in(first)
    answer = first.submit(path)
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard")
    assert is_signed_in(first)

    assert second.submit(path).status_code == 404
    assert second.get(path).status_code == 404
    assert not is_signed_in(second)


def test_only_hashes_are_stored(desk: Desk) -> None:
    name, _ = desk.books.user()
    unused = secret_of(desk.link(name))
    visitor = desk.signed_in()
    session = visitor.cookies["llmproxy-session"]
    with closing(sqlite3.connect(desk.site.proxy.home / "data" / "llmproxy.db")) as database:
        links = {row[0] for row in database.execute("SELECT hash FROM login_links")}
        hashes = {row[0] for row in database.execute("SELECT hash FROM sessions")}
        dump = "\n".join(database.iterdump())
    assert hashlib.sha256(unused.encode()).digest() in links
    assert hashlib.sha256(session.encode()).digest() in hashes
    for secret in (unused, session):
        assert secret not in dump
        assert secret.encode().hex() not in dump.lower()


def test_a_link_ends_after_15_minutes_and_by_another(book: Book) -> None:
    with book.write() as tx:
        user = accounts.create_user(tx, "eve", now_ms=NOW_MS)
        last_ms = NOW_MS + 15 * 60_000 - 1
        link = sessions.create_link(tx, user, now_ms=NOW_MS)
        assert sessions.find_link_user(tx, link, now_ms=last_ms) == user
        assert sessions.find_link_user(tx, link, now_ms=last_ms + 1) is None
        assert sessions.use_link(tx, link, now_ms=last_ms + 1) is None
        newer = sessions.create_link(tx, user, now_ms=NOW_MS)
        assert sessions.use_link(tx, link, now_ms=NOW_MS) is None
        assert sessions.use_link(tx, newer, now_ms=last_ms)


def test_a_session_ends_after_30_days_and_the_oldest_of_many_before(book: Book) -> None:
    with book.write() as tx:
        user = accounts.create_user(tx, "eve", now_ms=NOW_MS)
        made = []
        for n in range(sessions.SESSIONS_MAX + 1):
            link = sessions.create_link(tx, user, now_ms=NOW_MS + n)
            session = sessions.use_link(tx, link, now_ms=NOW_MS + n)
            assert session
            made.append(session.secret)
        oldest, second, *_ = made
        assert sessions.find_session_user(tx, oldest, now_ms=NOW_MS) is None
        last_ms = NOW_MS + 1 + 30 * 86_400_000 - 1
        assert sessions.find_session_user(tx, second, now_ms=last_ms) == user
        assert sessions.find_session_user(tx, second, now_ms=last_ms + 1) is None
        # The next sign-in clears away what has ended.
        sessions.use_link(
            tx, sessions.create_link(tx, user, now_ms=last_ms + 9), now_ms=last_ms + 99_999
        )
        assert tx.execute("SELECT count(*) FROM sessions").fetchone()[0] == 1


def test_a_link_that_has_ended_signs_nobody_in(desk: Desk) -> None:
    name, _ = desk.books.user()
    path, visitor = desk.link(name), desk.visitor()
    with desk.books.write() as tx:
        tx.execute("UPDATE login_links SET expires_at_ms = ?", (Clock().now_ms(),))
    assert visitor.get(path).status_code == 404
    assert visitor.submit(path).status_code == 404
    assert not is_signed_in(visitor)


@pytest.mark.parametrize("path", PAGES)
def test_a_page_leads_to_the_sign_in_without_a_session(desk: Desk, path: str) -> None:
    for cookie in ("", "llmproxy-session=" + "x" * 43, "llmproxy-session=%00'--"):
        visitor = desk.visitor(cookie=cookie)
        answer = visitor.get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard/sign-in")
        assert answer.text == ""
    assert "users login-link NAME" in desk.visitor().text("/dashboard/sign-in")


def test_signing_out_ends_the_session_itself(desk: Desk) -> None:
    visitor = desk.signed_in()
    session = visitor.cookies["llmproxy-session"]
    assert visitor.submit("/dashboard/sign-out").status_code == 303
    assert "llmproxy-session" not in visitor.cookies
    replay = desk.visitor(cookie=f"llmproxy-session={session}")
    assert not is_signed_in(replay)
    assert replay.submit(KEYS, name="late").status_code == 401


def test_the_command_signs_a_user_out_everywhere_and_nobody_else(desk: Desk) -> None:
    visitor, other = desk.signed_in(), desk.signed_in()
    unused = desk.link(visitor.name)
    found = desk.json("users", "sign-out", visitor.name)
    assert found == {"user": visitor.name, "sessions_ended": 1}
    assert not is_signed_in(visitor)
    assert desk.visitor().submit(unused).status_code == 404
    assert is_signed_in(other)


def test_a_disabled_user_is_signed_out_and_stays_so(desk: Desk) -> None:
    visitor = desk.signed_in()
    unused = desk.link(visitor.name)
    desk.run("users", "disable", visitor.name)
    assert not is_signed_in(visitor)
    assert visitor.submit(KEYS, name="late").status_code == 401
    assert desk.visitor().submit(unused).status_code == 404
    refused = desk.site.proxy.try_run("users", "login-link", visitor.name)
    assert (refused.returncode, "users enable" in refused.stderr) == (4, True)
    desk.run("users", "enable", visitor.name)
    assert not is_signed_in(visitor)


def test_a_user_who_is_disabled_by_other_means_has_no_session(book: Book) -> None:
    with book.write() as tx:
        user = accounts.create_user(tx, "eve", now_ms=NOW_MS)
        session = sessions.use_link(
            tx, sessions.create_link(tx, user, now_ms=NOW_MS), now_ms=NOW_MS
        )
        assert session
        accounts.set_user(tx, "eve", now_ms=NOW_MS, is_disabled=True)
        assert sessions.find_session_user(tx, session.secret, now_ms=NOW_MS) is None
        with pytest.raises(RefusedError, match="disabled"):
            sessions.create_link(tx, accounts.find_user(tx, "eve"), now_ms=NOW_MS)


def test_signing_in_makes_a_new_session_and_ends_the_browsers_old_one(desk: Desk) -> None:
    visitor = desk.signed_in()
    before = visitor.cookies["llmproxy-session"]
    visitor.submit(desk.link(visitor.name))
    assert visitor.cookies["llmproxy-session"] != before
    assert not is_signed_in(desk.visitor(cookie=f"llmproxy-session={before}"))

    # One that somebody has put there beforehand is not taken over.
    planted = "A" * 43
    victim = desk.visitor(cookie=f"llmproxy-session={planted}")
    victim.submit(desk.link(visitor.name))
    assert not is_signed_in(desk.visitor(cookie=f"llmproxy-session={planted}"))


def test_the_cookie_is_kept_from_scripts_and_other_sites(desk: Desk) -> None:
    name, _ = desk.books.user()
    cookie = desk.visitor().submit(desk.link(name)).headers["set-cookie"]
    first, *attributes = cookie.split("; ")
    assert re.fullmatch(r"llmproxy-session=[\w-]{43}", first)
    assert sorted(attributes) == ["HttpOnly", "Max-Age=2592000", "Path=/", "SameSite=Strict"]


def test_over_tls_the_cookie_is_bound_to_it_and_to_this_host(desk: Desk) -> None:
    name, _ = desk.books.user()
    visitor = desk.visitor(**{"x-forwarded-proto": "https"})  # by a proxy that is trusted
    cookie = visitor.submit(desk.link(name)).headers["set-cookie"]
    first, *attributes = cookie.split("; ")
    assert re.fullmatch(r"__Host-llmproxy-session=[\w-]{43}", first)
    assert "Secure" in attributes

    # The other cookie, which a neighbour could have set, does not count there.
    secret = first.partition("=")[2]
    for sent, status in ((first, 200), (f"llmproxy-session={secret}", 303)):
        other = desk.visitor(**{"x-forwarded-proto": "https", "cookie": sent})
        assert other.get("/dashboard").status_code == status


def test_nobody_but_a_trusted_proxy_says_that_a_request_came_by_tls(plain_desk: Desk) -> None:
    name, _ = plain_desk.books.user()
    liar = plain_desk.visitor(**{"x-forwarded-proto": "https"})
    cookie = liar.submit(plain_desk.link(name)).headers["set-cookie"]
    assert cookie.startswith("llmproxy-session=")
    assert "Secure" not in cookie


def test_an_address_with_many_wrong_links_must_wait_and_others_need_not(desk: Desk) -> None:
    name, _ = desk.books.user()
    wrong, good = "/dashboard/sign-in/" + "x" * 43, desk.link(name)
    guesser = desk.visitor()
    statuses = [guesser.get(wrong).status_code for _ in range(5)]
    statuses += [guesser.submit(wrong).status_code for _ in range(7)]
    assert statuses == [404] * 10 + [429] * 2
    refused = guesser.submit(good)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")
    assert desk.visitor().submit(good).status_code == 303


def test_failures_are_forgotten_after_a_minute_and_kept_in_bounds() -> None:
    attempts = SignInAttempts()
    for _ in range(10):
        attempts.note_failure("10.0.0.1", 100.0)
    assert not attempts.may_try("10.0.0.1", 159.9)
    assert attempts.may_try("10.0.0.1", 160.1)
    for n in range(COUNTED_MAX + 5):
        attempts.note_failure(str(n), 200.0)
    assert len(attempts._failures) == COUNTED_MAX


def test_only_the_attempt_that_signed_in_is_taken_back() -> None:
    attempts = SignInAttempts()
    for at_s in (100.0, 101.0):
        attempts.note_failure("10.0.0.1", at_s)
    attempts.take_back("10.0.0.1", 101.0)
    assert not attempts.may_try("10.0.0.1", 159.9, most=1)
    # 100.0 is still the one that counts, not 101.0.
    assert attempts.may_try("10.0.0.1", 160.1, most=1)
    # What a minute, or many others, have made forgotten is no error.
    attempts.take_back("10.0.0.1", 100.0)
    attempts.note_failure("10.0.0.1", 200.0)
    attempts.take_back("10.0.0.1", 100.0)
    assert not attempts.may_try("10.0.0.1", 200.0, most=1)
    # Who signs in at once takes up no room.
    attempts.take_back("10.0.0.1", 200.0)
    assert not attempts._failures
