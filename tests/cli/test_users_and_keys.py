"""Users, their credit and their API keys, on the command line."""

import re

import pytest

from llmproxy.vault import is_well_formed
from tests.cli.conftest import Program, Quick


def test_a_user_with_credit_and_key_is_made_in_one_go(quick: Quick) -> None:
    ran = quick.run(
        "users", "create", "ann", "--credit", "5", "--key", "laptop", "--rate-multiplier", "1.2"
    )
    assert ran.code == 0
    assert is_well_formed(ran.out.strip())
    assert "only this once" in ran.err
    assert quick.json("users", "show", "ann") | {"created_at": None} == {
        "name": "ann",
        "balance_usd": "5.00",
        "held_usd": "0.00",
        "available_usd": "5.00",
        "rate_multiplier": "1.2",
        "disabled": False,
        "admin": False,
        "limits": {},
        "created_at": None,
    }


def test_quiet_prints_the_key_and_nothing_else(program: Program) -> None:
    ran = program.run("users", "create", "ann", "--key", "laptop", "--quiet")
    assert (ran.code, ran.err) == (0, "")
    assert re.fullmatch(r"llmp_[0-9A-Za-z]{49}\n", ran.out)


def test_when_any_part_fails_no_user_is_made(quick: Quick) -> None:
    assert "above zero" in quick.fails(4, "users", "create", "ann", "--credit", "0", "--key", "a")
    assert "cannot be a key name" in quick.fails(
        4, "users", "create", "ann", "--credit", "1", "--key", "/"
    )
    assert quick.json("users", "list") == []


def test_a_taken_or_impossible_name_is_refused(quick: Quick) -> None:
    quick.ok("users", "create", "ann")
    assert quick.fails(4, "users", "create", "ann") == "Error: User ann exists already.\n"
    assert "cannot be a user name" in quick.fails(4, "users", "create", "Ann Smith")


@pytest.mark.parametrize("amount", ["five", "1e3", "0.0000000001", "1.2.3", ""])
def test_an_amount_that_is_not_exact_is_wrong_usage(quick: Quick, amount: str) -> None:
    quick.ok("users", "create", "ann")
    assert quick.fails(2, "credits", "add", "ann", amount).startswith("Error: ")


def test_no_users_yet_says_how_to_make_one(quick: Quick) -> None:
    ran = quick.run("users", "list")
    assert (ran.code, ran.out) == (0, "")
    assert ran.err == "No users yet. Create one: llmproxy users create NAME\n"


def test_users_are_listed_as_an_aligned_table_in_a_pipe(quick: Quick) -> None:
    quick.ok("users", "create", "ann", "--credit", "5")
    quick.ok("users", "create", "benjamin", "--credit", "12.3456")
    head, ann, benjamin = quick.ok("users", "list").splitlines()
    assert head.split()[:4] == ["USER", "BALANCE", "HELD", "AVAILABLE"]
    assert ann.index(".") == benjamin.index(".")
    assert "\x1b" not in head


def test_more_rows_than_the_limit_are_hinted_at(quick: Quick) -> None:
    for name in ("ann", "ben", "cid"):
        quick.ok("users", "create", name)
    ran = quick.run("users", "list", "--limit", "2")
    assert "cid" not in ran.out
    assert ran.err.startswith("… more.")
    assert len(quick.json("users", "list", "--limit", "0")) == 3
    assert quick.run("users", "list", "--limit", "3").err == ""


def test_an_unknown_user_is_not_found(quick: Quick) -> None:
    for command in (
        ("users", "show", "zoe"),
        ("users", "disable", "zoe"),
        ("credits", "add", "zoe", "5"),
        ("credits", "list", "zoe"),
        ("keys", "create", "zoe"),
        ("keys", "list", "zoe"),
    ):
        assert quick.fails(3, *command) == (
            "Error: There is no user 'zoe'. See: llmproxy users list\n"
        )


def test_a_user_is_changed_disabled_and_enabled(quick: Quick) -> None:
    quick.ok("users", "create", "ann")
    assert "costs × 2.5" in quick.ok("users", "set", "ann", "--rate-multiplier", "2.5")
    assert quick.json("users", "disable", "ann")["disabled"] is True
    assert "disabled" in quick.ok("users", "list")
    assert quick.json("users", "enable", "ann")["disabled"] is False
    assert quick.json("users", "show", "ann")["rate_multiplier"] == "2.5"


def test_credit_with_the_same_idempotency_key_is_added_once(quick: Quick) -> None:
    quick.ok("users", "create", "ann")
    add = ("credits", "add", "ann", "20", "--idempotency-key", "invoice-17")
    assert quick.ok(*add) == "ann: 20.00 USD, balance 20.00 USD.\n"
    assert quick.ok(*add) == "ann: 20.00 was credited before; nothing added, balance 20.00 USD.\n"
    assert quick.json(*add)["is_repeat"] is True
    quick.fails(4, "credits", "add", "ann", "21", "--idempotency-key", "invoice-17")
    quick.ok("users", "create", "ben")
    quick.fails(4, "credits", "add", "ben", "20", "--idempotency-key", "invoice-17")
    (entry,) = quick.json("credits", "list", "ann")
    assert entry["idempotency_key"] == "invoice-17"


@pytest.mark.parametrize("key", ["", "  ", "x" * 256])
def test_a_blank_idempotency_key_is_no_key(quick: Quick, key: str) -> None:
    """Such as that of an unset variable: it would swallow every payment but the first."""
    quick.ok("users", "create", "ann")
    err = quick.fails(4, "credits", "add", "ann", "20", "--idempotency-key", key)
    assert err == "Error: An idempotency key must have 1 to 255 characters.\n"
    assert quick.json("users", "show", "ann")["balance_usd"] == "0.00"


def test_an_adjustment_takes_credit_back_but_never_below_zero(quick: Quick) -> None:
    quick.ok("users", "create", "ann", "--credit", "5")
    out = quick.ok("credits", "adjust", "ann", "--by", "-4.25", "--reason", "paid out")
    assert out == "ann: -4.25 USD, balance 0.75 USD.\n"
    err = quick.fails(4, "credits", "adjust", "ann", "--by", "-1", "--reason", "more")
    assert err == "Error: Only 0.75 USD are available to be taken.\n"
    entries = quick.json("credits", "list", "ann")
    assert [(e["kind"], e["amount_usd"], e["reason"], e["by"]) for e in entries] == [
        ("adjust", "-4.25", "paid out", "cli:olga"),
        ("credit", "5.00", "first credit", "cli:olga"),
    ]


def test_an_adjustment_needs_a_reason(quick: Quick) -> None:
    assert "--reason" in quick.fails(2, "credits", "adjust", "ann", "--by", "1")
    quick.ok("users", "create", "ann")
    blank = ("credits", "adjust", "ann", "--by", "1", "--reason", " ")
    assert "needs a reason" in quick.fails(4, *blank)
    assert quick.json("credits", "list", "ann") == []


def test_a_users_history_tells_who_and_why(quick: Quick) -> None:
    quick.ok("users", "create", "ann")
    quick.ok("credits", "add", "ann", "20", "--reason", "invoice 17")
    quick.ok("users", "disable", "ann")
    quick.ok("credits", "adjust", "ann", "--by", "-20", "--reason", "paid back")
    newest, oldest = quick.ok("credits", "list", "ann").splitlines()[-2:]
    assert newest.split()[-5:] == ["adjust", "-20.00", "paid", "back", "cli:olga"]
    assert oldest.split()[-5:] == ["credit", "20.00", "invoice", "17", "cli:olga"]


def test_keys_are_made_listed_and_revoked(quick: Quick) -> None:
    quick.ok("users", "create", "ann")
    api_key = quick.ok("keys", "create", "ann", "--name", "laptop").strip()
    quick.fails(4, "keys", "create", "ann", "--name", "laptop")
    listed = quick.ok("keys", "list", "ann")
    assert api_key not in listed
    assert api_key[-4:] in listed
    quick.ok("keys", "revoke", "ann", "laptop")
    assert quick.json("keys", "list")[0]["state"] == "revoked"
    quick.fails(3, "keys", "revoke", "ann", "laptop")
    assert is_well_formed(quick.ok("keys", "create", "ann", "--name", "laptop").strip())


def test_the_key_is_stored_nowhere(quick: Quick) -> None:
    quick.ok("users", "create", "ann")
    api_key = quick.ok("keys", "create", "ann", "--quiet").strip()
    for path in quick.home.rglob("*"):
        if path.is_file():
            assert api_key.encode() not in path.read_bytes()


def test_control_characters_in_reasons_do_not_reach_the_terminal(quick: Quick) -> None:
    quick.ok("users", "create", "ann")
    quick.ok("credits", "add", "ann", "1", "--reason", "x\x1b[2J\u202ey\r\nz")
    assert "x[2Jyz" in quick.ok("credits", "list", "ann")
    assert "\u202e" not in quick.ok("credits", "list", "ann", "--json")
    assert quick.json("credits", "list", "ann")[0]["reason"] == "x\x1b[2J\u202ey\r\nz"


def test_a_key_is_rotated_under_its_name_and_printed_once(quick: Quick) -> None:
    old = quick.ok("users", "create", "ann", "--key", "laptop", "--quiet").strip()
    ran = quick.run("keys", "rotate", "ann", "laptop", "--overlap", "24h")
    new = ran.out.strip()
    assert is_well_formed(new)
    assert new != old
    assert f"{old[-4:]}) ends at 20" in ran.err
    listed = quick.json("keys", "list", "ann")
    assert [(key["name"], key["state"]) for key in listed] == [
        ("laptop", "replaced"),
        ("laptop", "live"),
    ]
    assert re.fullmatch(r"llmp_\w{49}\n", quick.ok("keys", "rotate", "ann", "laptop", "--quiet"))
    third = quick.json("keys", "list", "ann", "--live")
    assert [key["state"] for key in third] == ["replaced", "live"]
    assert "API keys    laptop\n" in quick.ok("users", "show", "ann")
    rotated = quick.json("keys", "rotate", "ann", "laptop")
    assert (rotated["old"]["state"], rotated["expires_at"]) == ("revoked", None)
    assert "and the old one" in quick.ok("keys", "revoke", "ann", "laptop")
    assert quick.run("keys", "list", "--live").err.startswith("No live API keys.")
    quick.fails(3, "keys", "rotate", "ann", "laptop")
    quick.fails(2, "keys", "rotate", "ann", "laptop", "--overlap", "soon")


def test_a_key_may_have_an_end(quick: Quick) -> None:
    quick.ok("users", "create", "ann")
    made = quick.json("keys", "create", "ann", "--name", "course", "--expires", "2199-01-01")
    assert made["expires_at"] == "2199-01-01T00:00:00.000Z"
    assert "2199-01-01 00:00:00" in quick.ok("keys", "list")
    quick.fails(4, "keys", "create", "ann", "--name", "late", "--expires", "2020-01-01")
    assert "is no time" in quick.fails(2, "keys", "create", "ann", "--expires", "never")
