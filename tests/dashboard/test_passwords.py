"""Passwords: set by the user, compared slowly, limited in attempts, gone when they are to be."""

import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from llmproxy import accounts, audit, passwords, sessions
from llmproxy.dashboard.sign_in import begin_session
from llmproxy.errors import RefusedError
from tests.dashboard.helpers import Desk, Visitor
from tests.support.books import Book

PASSWORD = "/dashboard/settings/password"
SIGN_IN = "/dashboard/sign-in"
GOOD = "four words make one"
NOW_MS = 1_790_000_000_000


CHEAP = Argon2id(
    salt=b"a salt of a test", length=32, iterations=1, lanes=1, memory_cost=8
).derive_phc_encoded(GOOD.encode())
"""Of GOOD, compared in no time; the costs of what the pages store are tested by themselves."""


def with_password(desk: Desk) -> Visitor:
    """Somebody who has set GOOD as their password, and is signed in."""
    visitor = desk.signed_in()
    with desk.books.write() as tx:
        passwords.store_password(tx, accounts.find_user(tx, visitor.name), CHEAP)
    return visitor


def set_password(desk: Desk, password: str = GOOD) -> Visitor:
    """Somebody who sets a password on the page."""
    visitor = desk.signed_in()
    response = visitor.submit(PASSWORD, new=password, again=password)
    assert response.status_code == 303, response.text
    return visitor


def is_signed_in(visitor: Visitor) -> bool:
    return visitor.get("/dashboard").status_code == 200


def sign_in(desk: Desk, name: str, password: str) -> Visitor:
    visitor = desk.visitor(name)
    visitor.submit(SIGN_IN, name=name, password=password)
    return visitor


@pytest.mark.parametrize(
    ("password", "is_taken"),
    [
        ("a" * 12, False),
        ("elevenchars", False),
        ("twelve chars", True),
        ("annann-2026!" * 30, False),
        ("ann-ann-ann-2026", False),
        ("ünïcödé wörds", True),
    ],
)
def test_what_may_be_a_password(password: str, is_taken: bool) -> None:
    if is_taken:
        assert passwords.is_right(password, passwords.hash_password(password, "ann"))
    else:
        with pytest.raises(RefusedError, match="password"):
            passwords.hash_password(password, "ann")


def test_a_password_is_kept_as_argon2id_with_a_salt_of_its_own() -> None:
    first, second = (passwords.hash_password(GOOD, "ann") for _ in range(2))
    assert first.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert first != second
    assert passwords.is_right(GOOD, first)
    assert not passwords.is_right(GOOD + " ", first)
    assert not passwords.is_right(GOOD, None)
    assert not passwords.is_right(GOOD, "no hash")
    assert not passwords.is_right("x" * 1000, first)
    # Typed on another keyboard, the same letters are other code points.
    assert passwords.is_right(
        "cafe\u0301 au lait x", passwords.hash_password("café au lait x", "b")
    )


def test_who_has_set_a_password_signs_in_with_it_from_anywhere(desk: Desk) -> None:
    ann = set_password(desk)
    elsewhere = desk.visitor()
    response = elsewhere.submit(SIGN_IN, name=f"  {ann.name.upper()} ", password=GOOD)
    assert response.status_code == 303
    assert is_signed_in(elsewhere)
    assert ann.name in elsewhere.text("/dashboard")


def test_a_wrong_one_signs_nobody_in_and_tells_nothing(desk: Desk) -> None:
    ann, without = with_password(desk), desk.signed_in()
    answers = set()
    for name in (ann.name, without.name, "nobody-of-this-name", "' OR 1=1 --", ""):
        visitor = desk.visitor()
        response = visitor.submit(SIGN_IN, name=name, password="some other words")
        assert response.status_code == 401
        assert not visitor.cookies
        shown = name.lower().replace("'", "&#39;")
        answers.add(response.text.replace(f'value="{shown}"', 'value=""'))
    assert len(answers) == 1


def test_attempts_are_limited_by_address_and_by_user(desk: Desk) -> None:
    ann, ben = with_password(desk), with_password(desk)

    def guess(guesser: Visitor, times: int) -> list[int]:
        sent = {"name": ann.name, "password": "wrong wrong wrong"}
        return [guesser.submit(SIGN_IN, **sent).status_code for _ in range(times)]

    guesser = desk.visitor()
    assert guess(guesser, 11) == [*[401] * 10, 429]
    # This address may not try even the right one; who is elsewhere is not shut out by it.
    assert guesser.submit(SIGN_IN, name=ben.name, password=GOOD).status_code == 429
    assert is_signed_in(sign_in(desk, ann.name, GOOD))
    # From many addresses together no more than sixty a minute may try one user's password: ten
    # were tried above, and that ann has signed in meanwhile takes none of them back.
    assert sum(guess(desk.visitor(), 10).count(401) for _ in range(6)) == 50
    elsewhere = desk.visitor()
    response = elsewhere.submit(SIGN_IN, name=ann.name, password=GOOD)
    assert (response.status_code, response.headers["retry-after"]) == (429, "60")
    # A link still signs them in.
    assert elsewhere.submit(desk.link(ann.name)).status_code == 303
    assert is_signed_in(sign_in(desk, ben.name, GOOD))


def test_an_account_of_ones_own_buys_no_more_guesses_at_others(desk: Desk) -> None:
    ann, eve, guesser = with_password(desk), with_password(desk), desk.visitor()
    statuses = []
    for _ in range(3):
        for name, password in (*[(ann.name, "wrong wrong wrong")] * 4, (eve.name, GOOD)):
            statuses.append(guesser.submit(SIGN_IN, name=name, password=password).status_code)
    assert statuses == [*[401] * 4, 303, *[401] * 4, 303, *[401] * 2, *[429] * 3]
    # Nobody else is shut out by it.
    assert is_signed_in(sign_in(desk, ann.name, GOOD))
    assert is_signed_in(sign_in(desk, eve.name, GOOD))


def test_addresses_of_one_ipv6_network_are_counted_together(desk: Desk) -> None:
    statuses = []
    for n in range(11):
        visitor = desk.visitor(**{"x-forwarded-for": f"2001:db8:1:2::{n + 1:x}"})
        statuses.append(visitor.submit(SIGN_IN, name="nobody", password="x" * 12).status_code)
    assert statuses == [*[401] * 10, 429]
    other = desk.visitor(**{"x-forwarded-for": "2001:db8:1:3::1"})
    assert other.submit(SIGN_IN, name="nobody", password="x" * 12).status_code == 401


def test_nothing_to_do_is_not_noted_and_changes_are_counted(desk: Desk) -> None:
    ann = desk.signed_in()
    with desk.books.database.read() as tx:
        before = audit.count(tx)
    for _ in range(3):
        assert ann.submit("/dashboard/settings/sign-out-others").status_code == 303
        assert ann.submit(PASSWORD, do="remove").status_code == 422
    with desk.books.database.read() as tx:
        assert audit.count(tx) == before
    said = [ann.submit(PASSWORD, do="remove").text for _ in range(9)]
    assert "Too many attempts" in said[-1]


def test_who_signs_in_often_is_not_taken_for_a_guesser(desk: Desk) -> None:
    ann, visitor = with_password(desk), desk.visitor()
    for _ in range(12):
        assert visitor.submit(SIGN_IN, name=ann.name, password=GOOD).status_code == 303


def test_a_password_is_changed_only_by_who_knows_it_and_ends_other_sessions(desk: Desk) -> None:
    ann = with_password(desk)
    elsewhere = sign_in(desk, ann.name, GOOD)
    newer = "quite another one"
    for fields, said in (
        ({"new": newer, "again": newer}, "not your present password"),
        ({"current": "not it at all", "new": newer, "again": newer}, "not your present password"),
        ({"current": GOOD, "new": newer, "again": newer + "x"}, "typed in two ways"),
        ({"current": GOOD, "new": "short", "again": "short"}, "12 to 256 characters"),
        ({"do": "remove"}, "not your present password"),
    ):
        response = ann.submit(PASSWORD, **fields)
        assert response.status_code == 422
        assert said in response.text
        assert newer not in response.text
    assert is_signed_in(elsewhere)
    changed = ann.submit(PASSWORD, current=GOOD, new=newer, again=newer)
    assert changed.status_code == 303
    assert "The password is set." in ann.text(changed.headers["location"])
    assert is_signed_in(ann)
    assert not is_signed_in(elsewhere)
    assert not is_signed_in(sign_in(desk, ann.name, GOOD))
    assert is_signed_in(sign_in(desk, ann.name, newer))


def test_a_removed_password_signs_nobody_in(desk: Desk) -> None:
    ann = with_password(desk)
    removed = ann.submit(PASSWORD, current=GOOD, do="remove")
    assert removed.status_code == 303
    assert "The password is removed" in ann.text(removed.headers["location"])
    assert not is_signed_in(sign_in(desk, ann.name, GOOD))
    assert "You sign in with links" in ann.text(PASSWORD)
    ben = with_password(desk)
    desk.run("users", "set", ben.name, "--no-password")
    assert not is_signed_in(ben)
    assert not is_signed_in(sign_in(desk, ben.name, GOOD))


def test_a_disabled_user_has_no_password(desk: Desk) -> None:
    ann = with_password(desk)
    desk.run("users", "disable", ann.name)
    assert not is_signed_in(sign_in(desk, ann.name, GOOD))


def test_one_signs_out_everywhere_else(desk: Desk) -> None:
    ann = with_password(desk)
    elsewhere, unused = sign_in(desk, ann.name, GOOD), desk.link(ann.name)
    assert "on 1 other device " in ann.text(PASSWORD)
    done = ann.submit("/dashboard/settings/sign-out-others")
    assert done.status_code == 303
    assert 'role="status">You are signed out everywhere else.' in ann.text(done.headers["location"])
    assert is_signed_in(ann)
    assert not is_signed_in(elsewhere)
    assert desk.visitor().submit(unused).status_code == 404
    assert "signed in nowhere else" in ann.text(PASSWORD)


def test_passwords_stand_nowhere(desk: Desk) -> None:
    secret = "never to be found 77"
    ann = set_password(desk, secret)
    sign_in(desk, ann.name, secret)
    with desk.books.database.read() as tx:
        rows = list(tx.execute("SELECT * FROM audit_log"))
    assert ("users set-password", ann.name) in {(row[2], row[3]) for row in rows}
    assert secret not in str(rows)
    home = desk.site.proxy.home
    for path in home.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path


def test_operators_are_signed_in_for_a_day(book: Book) -> None:
    with book.write() as tx:
        accounts.create_user(tx, "eve", now_ms=NOW_MS)
        user = accounts.set_user(tx, "eve", now_ms=NOW_MS, is_admin=True)
        session = sessions.begin_session(tx, user, now_ms=NOW_MS)
        day_ms = 86_400_000
        assert session.life_ms == day_ms
        found = sessions.find_session_user(tx, session.secret, now_ms=NOW_MS + day_ms - 1)
        assert found == user
        assert found.is_admin
        assert sessions.find_session_user(tx, session.secret, now_ms=NOW_MS + day_ms) is None


def test_a_password_that_was_changed_while_it_was_compared_signs_nobody_in(book: Book) -> None:
    with book.write() as tx:
        user = accounts.create_user(tx, "eve", now_ms=NOW_MS)
        passwords.store_password(tx, user, "newer")
        assert begin_session(tx, "eve", "older", NOW_MS, "") is None
        assert begin_session(tx, "eve", "newer", NOW_MS, "") is not None
        accounts.set_user(tx, "eve", now_ms=NOW_MS, is_disabled=True)
        assert begin_session(tx, "eve", "newer", NOW_MS, "") is None
        assert begin_session(tx, "nobody", None, NOW_MS, "") is None
