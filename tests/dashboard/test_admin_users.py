"""The operator's pages about users: what the command line does to them, in a browser."""

import re
from html import unescape

import httpx
import pytest

from llmproxy import accounts, limit_store, passwords, reports
from llmproxy.clock import Clock
from tests.dashboard.helpers import Desk, Visitor, shown_key
from tests.support.limits import limit_key

USERS = "/dashboard/admin/users"


def page_of(desk: Desk, name: str) -> str:
    return f"{USERS}/{desk.user_id(name)}"


def once(operator: Visitor, page: str, form: str = "credit") -> str:
    """Return that by which one of the page's forms counts once."""
    html = operator.text(page).partition(f'action="{page}/{form}"')[2]
    found = re.search(r'name="once" value="([^"]*)"', html)
    assert found
    return found[1]


def stored(desk: Desk, name: str) -> accounts.User:
    with desk.books.database.read() as tx:
        return accounts.find_user(tx, name)


def test_a_user_is_made_with_credit_and_a_key_that_works_at_once(desk: Desk) -> None:
    boss = desk.operator()
    answer = boss.submit(
        USERS, name="cleo", credit="5.00", rate_multiplier="1.2", key="first laptop"
    )
    assert answer.status_code == 200
    key = shown_key(answer.text)
    assert desk.ask(key) == 200
    desk.books.settled_wallet("cleo")
    cleo = stored(desk, "cleo")
    assert cleo.rate_multiplier_micro == 1_200_000
    page = boss.text(page_of(desk, "cleo"))
    assert key not in page
    assert "first laptop" in page
    with desk.books.database.read() as tx:
        (credit,) = reports.list_credits(tx, cleo.wallet_id, limit=-1)
    assert (credit.amount_nanousd, credit.reason, credit.actor) == (
        *(5_000_000_000, "first credit"),
        f"dashboard:{boss.name}",
    )
    # Sent again, as by a double click: nobody is made twice, and no key is lost.
    again = boss.submit(USERS, name="cleo", credit="5.00", key="first laptop")
    assert (again.status_code, "exists already" in again.text) == (422, True)


def test_a_user_without_a_key_makes_their_own(desk: Desk) -> None:
    boss = desk.operator()
    answer = boss.submit(USERS, name="dora", rate_multiplier="1", credit="", key="")
    assert (answer.status_code, answer.headers["location"]) == (303, page_of(desk, "dora"))
    page = boss.submit(f"{page_of(desk, 'dora')}/sign-in-link").text
    url = re.search(r'<code id="secret"[^>]*>([^<]+)</code>', page)
    assert url
    assert url[1].startswith(desk.site.proxy.url)
    dora = desk.visitor("dora")
    assert dora.submit(url[1]).status_code == 303
    assert "None yet" in dora.text("/dashboard")
    assert url[1] not in boss.text(page_of(desk, "dora"))
    assert desk.visitor().submit(url[1]).status_code == 404  # it works once


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": ""}, "Give the user a name"),
        ({"name": "Ann"}, "cannot be a user name"),
        ({"name": "<b>"}, "cannot be a user name"),
        ({"name": "eda", "credit": "five"}, "'five' is no amount"),
        ({"name": "eda", "credit": "0"}, "must be above zero"),
        ({"name": "eda", "credit": "-1"}, "must be above zero"),
        ({"name": "eda", "credit": "1e3"}, "is no amount"),
        ({"name": "eda", "credit": "0.0000000001"}, "is finer than"),
        ({"name": "eda", "rate_multiplier": "x"}, "is no multiplier"),
        ({"name": "eda", "rate_multiplier": "1001"}, "larger than any multiplier"),
        ({"name": "eda", "key": "<b>"}, "cannot be a key name"),
    ],
)
def test_a_wrong_field_makes_nobody_and_keeps_what_was_typed(
    desk: Desk, fields: dict[str, str], said: str
) -> None:
    boss = desk.operator()
    answer = boss.submit(USERS, **{"credit": "2.50", "key": "typed", **fields})
    assert answer.status_code == 422
    page = unescape(answer.text)
    assert (said in page, "llmproxy " in page) == (True, False)  # a button does it, no command
    for field, text in {"key": "typed", **fields}.items():
        assert re.search(rf'name="{field}"[^>]* value="{re.escape(text)}"', page), field
    assert desk.books.count("SELECT count(*) FROM users WHERE name = 'eda'") == 0
    assert desk.acts(f"dashboard:{boss.name}") == []


def test_credit_is_added_once_for_each_form_however_often_it_is_sent(desk: Desk) -> None:
    boss, ann = desk.operator(), desk.signed_in()
    page = page_of(desk, ann.name)
    key = once(boss, page)
    for said in ("credit", "repeat", "repeat"):
        answer = boss.submit(f"{page}/credit", amount="5.00", reason="invoice 17", once=key)
        assert (answer.status_code, answer.headers["location"]) == (303, f"{page}?said={said}")
    assert desk.books.wallet(ann.name) == (10_000_000_000, 0)
    assert "not added twice" in boss.text(f"{page}?said=repeat")
    assert "$10.00" in ann.text("/dashboard")
    assert once(boss, page) != key  # the next form is another one
    boss.submit(f"{page}/credit", amount="1", once=once(boss, page))
    assert desk.books.wallet(ann.name) == (11_000_000_000, 0)
    assert desk.acts(f"dashboard:{boss.name}") == [
        ("credits add", f"{ann.name} 5.00 --reason 'invoice 17'"),
        ("credits add", f"{ann.name} 1"),
    ]
    assert "invoice 17" in boss.text(page)


def seen(boss: Visitor, page: str) -> str:
    """What the form about rate and limits showed."""
    found = re.search(r'name="seen" value="([^"]*)"', boss.text(page))
    assert found
    return found[1]


def change_rates(boss: Visitor, page: str, **fields: str) -> httpx.Response:
    return boss.submit(f"{page}/rates", seen=seen(boss, page), **fields)


def rates_form(html: str) -> dict[str, str]:
    """What a browser would send back of the form about rate and limits, as it is shown."""
    form = html.partition('/rates"')[2].partition("</form>")[0]
    fields = re.findall(r'name="(\w+)"[^>]* value="([^"]*)"', form)
    return {name: unescape(value) for name, value in fields}


def test_a_form_that_was_open_for_long_undoes_nothing(desk: Desk) -> None:
    boss, other, ann = desk.operator(), desk.operator(), desk.signed_in()
    page = page_of(desk, ann.name)
    shown = seen(boss, page)
    change_rates(other, page, rate_multiplier="2", requests_per_minute="5")
    answer = boss.submit(f"{page}/rates", seen=shown, rate_multiplier="1", concurrent_max="5")
    assert answer.status_code == 422
    assert "changed elsewhere meanwhile" in answer.text
    assert stored(desk, ann.name).rate_multiplier_micro == 2_000_000
    # The form has what is stored, as the page says: saved at once, it undoes nothing either.
    form = rates_form(answer.text)
    assert (form["rate_multiplier"], form["requests_per_minute"]) == ("2", "5")
    again = boss.submit(f"{page}/rates", **form)
    assert (again.status_code, "Nothing is different" in again.text) == (422, True)
    assert boss.submit(f"{page}/rates", rate_multiplier="3").status_code == 422
    limits = stored(desk, ann.name).limits
    assert limits is not None
    assert limits.as_json() == {"requests_per_minute": 5}


def test_a_form_with_a_mistake_is_sent_again_as_it_is_shown(desk: Desk) -> None:
    boss, ann = desk.operator(), desk.signed_in()
    page = page_of(desk, ann.name)
    answer = change_rates(boss, page, rate_multiplier="1.5", requests_per_minute="x")
    assert answer.status_code == 422
    form = rates_form(answer.text)
    assert (form["rate_multiplier"], form["requests_per_minute"]) == ("1.5", "x")
    form["requests_per_minute"] = "5"
    assert boss.submit(f"{page}/rates", **form).status_code == 303
    assert stored(desk, ann.name).rate_multiplier_micro == 1_500_000


@pytest.mark.parametrize(
    ("form", "fields", "said"),
    [
        ("credit", {"amount": "five"}, "'five' is no amount"),
        ("credit", {"amount": ""}, "is no amount"),
        ("credit", {"amount": "-5"}, "“Correct the balance…” below does it"),
        ("credit", {"amount": "1", "once": ""}, "An idempotency key must have"),
        ("credit", {"amount": "1", "reason": "x" * 301}, "Reason: at most 300 characters"),
        ("credit", {"amount": "9999999999"}, "larger than any amount"),
        ("adjust", {"amount": "1", "reason": ""}, "needs a reason"),
        ("adjust", {"amount": "0"}, "changes nothing"),
        ("adjust", {"amount": "-5.01"}, "Only 5.00 USD are available"),
        ("rates", {"rate_multiplier": ""}, "is no multiplier"),
        ("rates", {"rate_multiplier": "1"}, "Nothing is different"),
        ("rates", {"rate_multiplier": "1", "concurrent_max": "-1"}, "Requests at once: it must"),
    ],
)
def test_a_wrong_amount_or_limit_changes_nothing_and_keeps_what_was_typed(
    desk: Desk, form: str, fields: dict[str, str], said: str
) -> None:
    boss, ann = desk.operator(), desk.signed_in()
    page = page_of(desk, ann.name)
    sent = {"reason": 'the "typed" <one>', **fields}
    if form == "rates":
        sent["seen"] = seen(boss, page)
    else:
        sent = {"once": once(boss, page, form), **sent}
    answer = boss.submit(f"{page}/{form}", **sent)
    assert answer.status_code == 422
    assert said in unescape(answer.text)
    if form != "rates" and sent["reason"]:
        assert sent["reason"] in unescape(answer.text)
        assert "<one>" not in answer.text
    assert desk.books.wallet(ann.name) == (5_000_000_000, 0)
    assert desk.acts(f"dashboard:{boss.name}") == []


def test_a_balance_is_corrected_down_and_up(desk: Desk) -> None:
    boss, ann = desk.operator(), desk.signed_in()
    page = page_of(desk, ann.name)
    seen = once(boss, page, "adjust")
    assert (
        boss.submit(f"{page}/adjust", amount="-4.50", reason="paid out", once=seen)
        .headers["location"]
        .endswith("said=adjust")
    )
    assert desk.books.wallet(ann.name) == (500_000_000, 0)
    # Sent again, as by a double click: it is done once.
    for shown in (seen, "", "x"):
        again = boss.submit(f"{page}/adjust", amount="0.50", reason="paid out", once=shown)
        assert (again.status_code, "perhaps by this very form" in again.text) == (422, True)
    seen = once(boss, page, "adjust")
    boss.submit(f"{page}/adjust", amount="0.25", reason="it's back", once=seen)
    assert desk.books.wallet(ann.name) == (750_000_000, 0)
    assert desk.acts(f"dashboard:{boss.name}") == [
        ("credits adjust", f"{ann.name} --by -4.50 --reason 'paid out'"),
        ("credits adjust", f"{ann.name} --by 0.25 --reason 'it'\"'\"'s back'"),
    ]


def test_the_multiplier_and_limits_count_at_once_and_only_what_differs_is_noted(
    desk: Desk,
) -> None:
    boss, ann = desk.operator(), desk.signed_in()
    page = page_of(desk, ann.name)
    change_rates(boss, page, rate_multiplier="1.50", requests_per_minute="1")
    assert desk.ask(ann.api_key) == 200
    assert desk.ask(ann.api_key) == 429
    assert stored(desk, ann.name).rate_multiplier_micro == 1_500_000
    html = boss.text(page)
    assert 'name="rate_multiplier" required inputmode="decimal" maxlength="20" value="1.5"' in html
    change_rates(boss, page, rate_multiplier="1.5", concurrent_max="8")
    assert desk.ask(ann.api_key) == 200
    limits = stored(desk, ann.name).limits
    assert limits is not None
    assert limits.as_json() == {"concurrent_max": 8}
    assert desk.acts(f"dashboard:{boss.name}") == [
        ("users set", f"{ann.name} --rate-multiplier 1.50 --rpm 1"),
        ("users set", f"{ann.name} --rpm none --concurrent 8"),
    ]


def test_a_disabled_user_is_refused_and_signed_out_until_enabled(desk: Desk) -> None:
    boss, ann = desk.operator(), desk.signed_in()
    page = page_of(desk, ann.name)
    assert desk.ask(ann.api_key) == 200
    assert boss.submit(f"{page}/do/disable").headers["location"] == f"{page}?said=disable"
    assert desk.ask(ann.api_key) == 403
    assert ann.get("/dashboard").headers["location"] == "/dashboard/sign-in"
    refused = boss.submit(f"{page}/sign-in-link")
    assert (refused.status_code, "Enable them first.</p>" in refused.text) == (422, True)
    boss.submit(f"{page}/do/enable")
    assert desk.ask(ann.api_key) == 200
    assert ann.get("/dashboard").status_code == 303  # the session does not come back


def test_an_operator_is_made_and_unmade_but_never_by_themselves(desk: Desk) -> None:
    boss, ann = desk.operator(), desk.signed_in()
    page, own = page_of(desk, ann.name), page_of(desk, boss.name)
    assert ann.get(USERS).status_code == 403
    boss.submit(f"{page}/do/admin")
    assert ann.get(USERS).status_code == 303  # signed out: begin anew with the other part
    assert ann.submit(desk.link(ann.name)).status_code == 303
    assert ann.get(USERS).status_code == 200
    for act in ("no-admin", "disable"):
        answer = boss.submit(f"{own}/do/{act}")
        assert answer.status_code == 422
        assert "You cannot disable yourself, nor change your own role" in answer.text
    html = boss.text(own)
    assert "This is you." in html
    assert "/do/disable" not in html
    assert "/do/no-admin" not in html
    assert ann.submit(f"{own}/do/no-admin").status_code == 303
    assert boss.get(USERS).status_code == 303
    assert not stored(desk, boss.name).is_admin
    assert stored(desk, ann.name).is_admin


def test_signing_out_everywhere_and_forgetting_the_password(desk: Desk) -> None:
    boss, ann = desk.operator(), desk.signed_in()
    page = page_of(desk, ann.name)
    with desk.books.write() as tx:
        hashed = passwords.hash_password("correct horse battery", ann.name)
        passwords.store_password(tx, accounts.find_user(tx, ann.name), hashed)
    link = desk.link(ann.name)
    boss.submit(f"{page}/do/sign-out")
    assert ann.get("/dashboard").status_code == 303
    assert ann.submit(link).status_code == 404
    assert "Forget password" in boss.text(page)
    boss.submit(f"{page}/do/no-password")
    assert not stored(desk, ann.name).has_password
    assert "Forget password" not in boss.text(page)
    answer = ann.submit("/dashboard/sign-in", name=ann.name, password="correct horse battery")
    assert answer.status_code == 401


def test_api_keys_are_revoked_and_resumed_by_the_operator(desk: Desk) -> None:
    boss, ann = desk.operator(), desk.signed_in()
    page, key_id = page_of(desk, ann.name), ann.key_ids()["test"]
    limit_key(desk.books, ann.name, "test", requests_per_minute=1000)
    with desk.books.write() as tx:
        limits_id = tx.execute("SELECT limits_id FROM api_keys WHERE id = ?", (key_id,)).fetchone()[
            0
        ]
        limit_store.suspend(tx, limits_id, "it spent too fast", Clock().now_ms())
    assert "it spent too fast" in boss.text(page)
    assert boss.submit(f"{page}/keys/{key_id}/resume").headers["location"].endswith("said=resume")
    assert desk.ask(ann.api_key) == 200
    again = boss.submit(f"{page}/keys/{key_id}/resume")
    assert (again.status_code, "is not suspended" in again.text) == (422, True)
    boss.submit(f"{page}/keys/{key_id}/revoke")
    assert desk.ask(ann.api_key) == 401
    again = boss.submit(f"{page}/keys/{key_id}/revoke")
    assert (again.status_code, "has ended already" in again.text) == (422, True)
    assert "Ended last: test (revoked" in boss.text(page)


def test_what_is_not_there_is_missing(desk: Desk) -> None:
    boss, ann, ben = desk.operator(), desk.signed_in(), desk.signed_in()
    page, bens = page_of(desk, ann.name), ben.key_ids()["test"]
    for path in (f"{USERS}/999999", f"{USERS}/0", f"{USERS}/-1", f"{USERS}/{'9' * 30}"):
        assert boss.get(path).status_code == 404
        assert boss.submit(f"{path}/do/disable").status_code == 404
    for path in (f"{page}/do/nothing", f"{page}/keys/{bens}/revoke", f"{page}/keys/1{bens}/resume"):
        assert boss.submit(path).status_code == 404, path
    assert desk.ask(ben.api_key) == 200
    assert desk.acts(f"dashboard:{boss.name}") == []


def test_the_acts_of_pages_are_noted_in_the_words_of_the_commands(desk: Desk) -> None:
    boss, run = desk.operator(), desk.run
    page = f"{USERS}/0"

    def both(command: list[str], path: str, **fields: str) -> None:
        """Do the same by a command and by a page, and compare what is noted."""
        run(*command)
        answer = boss.submit(path.replace("PAGE", page), **fields)
        assert answer.status_code in {200, 303}, answer.text
        with desk.books.database.read() as tx:
            rows = tx.execute("SELECT actor, act, details FROM audit_log ORDER BY id DESC LIMIT 2")
            (actor, *noted), (typist, *typed) = map(tuple, rows.fetchall())
        assert actor == f"dashboard:{boss.name}"
        assert typist.startswith("cli:")
        assert [noted[0], noted[1].replace("paul", "mary")] == typed

    both(
        ["users", "create", "mary", "--rate-multiplier", "1.2", "--credit", "5", "--key", "a b"],
        USERS,
        name="paul",
        rate_multiplier="1.2",
        credit="5",
        key="a b",
    )
    page = page_of(desk, "paul")
    with desk.books.database.read() as tx:
        (key,) = accounts.list_api_keys(tx, accounts.find_user(tx, "paul"), limit=-1)
    both(
        ["credits", "add", "mary", "5.00", "--reason", "invoice 17"],
        "PAGE/credit",
        amount="5.00",
        reason="invoice 17",
        once="mary-1",
    )
    both(
        ["credits", "adjust", "mary", "--by=-5.00", "--reason", "paid out"],
        "PAGE/adjust",
        amount="-5.00",
        reason="paid out",
        once=once(boss, page, "adjust"),
    )
    both(
        ["users", "set", "mary", "--rate-multiplier", "1", "--rpm", "120", "--tpm", "5000"],
        "PAGE/rates",
        seen=seen(boss, page),
        rate_multiplier="1",
        requests_per_minute="120",
        tokens_per_minute="5000",
    )
    both(["users", "set", "mary", "--admin"], "PAGE/do/admin")
    both(["users", "set", "mary", "--no-admin"], "PAGE/do/no-admin")
    both(["users", "set", "mary", "--no-password"], "PAGE/do/no-password")
    both(["users", "login-link", "mary"], "PAGE/sign-in-link")
    both(["users", "sign-out", "mary"], "PAGE/do/sign-out")
    both(["users", "disable", "mary"], "PAGE/do/disable")
    both(["users", "enable", "mary"], "PAGE/do/enable")
    both(["keys", "revoke", "mary", "a b"], f"PAGE/keys/{key.id}/revoke")
