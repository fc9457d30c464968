"""Providers and their keys, on the command line."""

import re
import shlex
from pathlib import Path

from llmproxy import key_pool
from llmproxy.config import find_paths, load_vault
from llmproxy.provider_events import OVERLOADED, ProviderEvent, add_event
from llmproxy.storage.database import AdminDatabase
from tests.cli.conftest import Program, Quick

SECRET = "sk-proj-0123456789abcdefghijklmnop"


def test_known_providers_are_named_before_any_is_set_up(quick: Quick) -> None:
    ran = quick.run("providers", "list")
    assert ran.out == ""
    assert "No provider is set up yet. Known: openai, anthropic" in ran.err
    listed = quick.json("providers", "list")
    assert {row["state"] for row in listed} == {"not_set_up"}
    assert listed[0]["base_url"] == "https://api.openai.com/v1"


def test_a_provider_key_is_read_from_stdin_and_sealed(program: Program) -> None:
    ran = program.run("provider-keys", "add", "openai", stdin=f"{SECRET}\n")
    assert ran.code == 0, ran
    assert SECRET not in ran.out + ran.err
    assert "sk-proj-…mnop" in ran.out
    for path in program.home.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes()


def test_a_provider_key_is_read_from_a_file(quick: Quick, tmp_path: Path) -> None:
    file = tmp_path / "openai.key"
    file.write_text(SECRET + "\n")
    quick.ok("provider-keys", "add", "openai", "--key-file", str(file), "--name", "team")
    assert quick.json("provider-keys", "list")[0]["name"] == "team"
    missing = str(tmp_path / "missing")
    assert "cannot be read" in quick.fails(
        2, "provider-keys", "add", "openai", "--key-file", missing
    )
    quick.ok("provider-keys", "add", "openai", "--key-file", "-", stdin=SECRET + "2")
    assert [key["name"] for key in quick.json("provider-keys", "list", "openai")] == [
        "team",
        "key-1",
    ]


def test_the_same_key_is_not_stored_twice(quick: Quick) -> None:
    quick.ok("provider-keys", "add", "openai", "--name", "the team", stdin=SECRET)
    told = quick.fails(4, "provider-keys", "add", "openai", stdin=SECRET)
    assert "'the team' of openai" in told
    assert "is in use." in told
    quick.ok("provider-keys", "disable", "openai", "the team")
    told = quick.fails(4, "provider-keys", "add", "openai", stdin=SECRET)
    assert SECRET not in told
    command = told.partition("llmproxy ")[2]
    quick.ok(*shlex.split(command))  # as it is told
    assert [key["state"] for key in quick.json("provider-keys", "list")] == ["active"]


def test_on_a_terminal_the_key_is_asked_for_and_not_shown(program: Program) -> None:
    ran = program.run_in_terminal("provider-keys", "add", "openai", typed=SECRET)
    assert ran.code == 0, ran
    assert "Key of openai (not shown)" in ran.out
    assert SECRET not in ran.out
    assert "stored" in ran.out


def test_a_secret_can_not_be_an_argument(quick: Quick) -> None:
    quick.fails(2, "provider-keys", "add", "openai", SECRET)


def test_what_is_no_key_is_refused_without_being_echoed(quick: Quick) -> None:
    for text in ("", "short", "two words and more of them"):
        err = quick.fails(4, "provider-keys", "add", "openai", stdin=text)
        assert "no provider key" in err
        assert not text or text not in err
    assert "no provider 'nobody'" in quick.fails(3, "provider-keys", "add", "nobody", stdin=SECRET)


def test_a_second_master_key_is_not_made_while_keys_are_sealed(quick: Quick) -> None:
    quick.ok("provider-keys", "add", "openai", stdin=SECRET)
    master_key = quick.home / "config" / "master.key"
    assert master_key.stat().st_mode & 0o777 == 0o600
    master_key.rename(master_key.with_suffix(".moved"))
    err = quick.fails(1, "provider-keys", "add", "openai", stdin=SECRET)
    assert "is missing" in err
    assert not master_key.exists()


def test_pausing_says_why_and_by_whom_until_resumed(quick: Quick) -> None:
    quick.ok("provider-keys", "add", "openai", stdin=SECRET)
    quick.ok("providers", "pause", "openai", "--reason", "invoice unpaid")
    assert "invoice unpaid (cli:olga)" in quick.ok("providers", "list")
    shown = quick.json("providers", "show", "openai")
    assert (shown["state"], shown["reason"], shown["by"]) == (
        "paused",
        "invoice unpaid",
        "cli:olga",
    )
    assert shown["since"].endswith("Z")
    quick.ok("providers", "resume", "openai")
    assert quick.json("providers", "show", "openai")["state"] == "active"


def test_what_the_server_took_out_is_shown_with_the_status_that_it_was_told(quick: Quick) -> None:
    for number in range(2):
        quick.ok("provider-keys", "add", "openai", stdin=f"{SECRET}{number}")
    database = AdminDatabase(quick.database)
    with database.write() as tx:
        key_pool.set_key_state(
            tx, 1, "dead", reason="401: no", actor="proxy", now_ms=1, upstream_status=401
        )
        key_pool.pause_provider(
            tx,
            "openai",
            reason="it fails: 502: boom",
            actor="proxy",
            now_ms=2,
            until_ms=9,
            upstream_status=502,
        )
        add_event(tx, ProviderEvent("openai", None, OVERLOADED, "m: 529", 529, 8, "proxy", 3))
    database.close()
    (listed,) = (one for one in quick.json("providers", "list") if one["name"] == "openai")
    shown = quick.json("providers", "show", "openai", "--events", "0")
    assert shown == {**listed, "history": []}
    assert (shown["reason"], shown["upstream_status"]) == ("it fails: 502: boom", 502)
    since, until = (f"1970-01-01T00:00:00.00{ms}Z" for ms in (2, 9))
    assert (shown["since"], shown["until"], shown["by"]) == (since, until, "proxy")
    keys = [(key["state"], key["reason"], key["upstream_status"]) for key in shown["keys"]]
    assert keys == [("dead", "401: no", 401), ("active", None, None)]
    table = quick.ok("providers", "show", "openai", "--events", "0")
    assert re.search(r"upstream status +502\n", table)
    assert re.search(r"key-1 .* dead +401: no +401 ", table)
    assert [key["upstream_status"] for key in quick.json("provider-keys", "list")] == [401, None]
    resumed = quick.json("providers", "resume", "openai")
    assert (resumed["state"], resumed["upstream_status"]) == ("active", None)
    assert resumed["keys"][0]["upstream_status"] == 401
    quick.ok("provider-keys", "enable", "openai", "key-1")
    assert quick.json("provider-keys", "list")[0]["upstream_status"] is None


def test_keys_are_disabled_enabled_and_removed(quick: Quick) -> None:
    quick.ok("provider-keys", "add", "openai", stdin=SECRET)
    quick.ok("provider-keys", "disable", "openai", "key-1", "--reason", "rotating")
    listed = quick.ok("providers", "list")
    assert "no active keys" in listed
    assert "key-1 disabled: rotating" in listed
    quick.ok("provider-keys", "enable", "openai", "key-1")
    assert quick.json("provider-keys", "list")[0]["state"] == "active"
    assert "add --yes" in quick.fails(2, "provider-keys", "remove", "openai", "key-1")
    quick.ok("provider-keys", "remove", "openai", "key-1", "--yes")
    assert quick.json("provider-keys", "list") == []
    quick.fails(3, "provider-keys", "remove", "openai", "key-1", "--yes")
    quick.fails(3, "provider-keys", "enable", "openai", "key-1")


def test_removing_asks_on_a_terminal(program: Program) -> None:
    program.run("provider-keys", "add", "openai", stdin=SECRET)
    ran = program.run_in_terminal("provider-keys", "remove", "openai", "key-1", typed="n")
    assert ran.code == 1
    assert "Nothing was changed." in ran.out


def test_a_new_base_url_is_asked_about_and_seals_the_keys_again(quick: Quick) -> None:
    quick.ok("provider-keys", "add", "openai", stdin=SECRET)
    url = "https://gateway.example.com/v1/"
    err = quick.fails(2, "providers", "set", "openai", "--base-url", url)
    assert "will get its key" in err
    assert "add --yes" in err
    quick.ok("providers", "set", "openai", "--base-url", url, "--yes")
    assert _open_only_key(quick) == (SECRET, "https://gateway.example.com/v1")


def _open_only_key(quick: Quick) -> tuple[str, str]:
    database = AdminDatabase(quick.database)
    with database.read() as tx:
        (provider,) = key_pool.list_providers(tx)
        (key,) = key_pool.list_provider_keys(tx)
    database.close()
    vault = load_vault(find_paths())
    assert vault is not None
    url = provider.base_url
    return vault.open(key.sealed, row_id=key.id, provider="openai", base_url=url), url


def test_plain_http_is_for_this_machine_unless_allowed(quick: Quick) -> None:
    quick.ok("providers", "set", "openai", "--base-url", "http://127.0.0.1:8080/v1")
    remote = ("providers", "set", "openai", "--base-url", "http://10.0.0.7/v1")
    assert "--allow-http" in quick.fails(4, *remote)
    quick.ok(*remote, "--allow-http")
    for url in ("ftp://example.com", "https://a..example", f"https://{'x' * 64}.example"):
        told = quick.fails(4, "providers", "set", "openai", "--base-url", url)
        assert "cannot be a base URL" in told


def test_an_unknown_provider_is_not_found(quick: Quick) -> None:
    quick.fails(3, "providers", "show", "nobody")
    quick.fails(3, "providers", "pause", "nobody", "--reason", "x")
    quick.fails(3, "provider-keys", "list", "nobody")


def test_every_change_can_answer_in_json(quick: Quick) -> None:
    def state(*words: str, stdin: str = "") -> object:
        return quick.json(*words, stdin=stdin)["state"]

    assert state("provider-keys", "add", "openai", stdin=SECRET) == "active"
    assert state("provider-keys", "disable", "openai", "key-1") == "disabled"
    assert state("providers", "show", "openai") == "no_active_keys"
    assert state("provider-keys", "enable", "openai", "key-1") == "active"
    assert state("providers", "pause", "openai", "--reason", "x") == "paused"
    assert state("providers", "resume", "openai") == "active"
    moved = quick.json("providers", "set", "openai", "--base-url", "http://127.0.0.1:9/v1", "--yes")
    assert moved["base_url"] == "http://127.0.0.1:9/v1"
    assert state("provider-keys", "remove", "openai", "key-1", "--yes") == "removed"
    quick.ok("users", "create", "ann")
    assert quick.json("keys", "create", "ann")["api_key"].startswith("llmp_")
    assert state("keys", "revoke", "ann", "default") == "revoked"
    assert quick.json("users", "create", "ben", "--key", "k")["api_key"].startswith("llmp_")


def test_a_provider_is_shown_with_its_keys_or_how_to_add_one(quick: Quick) -> None:
    ran = quick.run("providers", "show", "xai")
    assert "https://api.x.ai/v1" in ran.out
    assert ran.err == "No keys yet. Add one: llmproxy provider-keys add xai\n"
    assert "No provider keys yet" in quick.run("provider-keys", "list").err
    quick.ok("provider-keys", "add", "xai", stdin=SECRET)
    quick.ok("providers", "pause", "xai", "--reason", "slow today")
    out = quick.ok("providers", "show", "xai")
    assert "slow today" in out
    assert "by cli:olga" in out
    assert "sk-proj-…mnop" in out
    assert "xai       key-1" in quick.ok("provider-keys", "list")


def test_a_known_provider_may_speak_another_dialect_where_a_gateway_is(quick: Quick) -> None:
    quick.ok("provider-keys", "add", "gemini", stdin=SECRET)
    url = ("--base-url", "https://gateway.example.com/v1", "--yes")
    ran = quick.run("providers", "set", "gemini", *url)
    assert "go to https://gateway.example.com/v1/v1beta/models" in ran.err
    assert "the dialect is openai" in ran.err
    moved = quick.json("providers", "set", "gemini", "--dialect", "openai")
    assert (moved["dialect"], moved["base_url"]) == ("openai", url[1])
    back = ("--base-url", "https://generativelanguage.googleapis.com", "--dialect", "gemini")
    moved = quick.json("providers", "set", "gemini", *back, "--yes")
    assert (moved["dialect"], moved["base_url"]) == ("gemini", back[1])
    assert "--dialect must be" in quick.fails(2, "providers", "set", "gemini", "--dialect", "x")


def test_what_speaks_another_dialect_is_asked_for_usage_as_that_allows(quick: Quick) -> None:
    def streams(*options: str) -> bool:
        quick.ok("providers", "set", "anthropic", *options)
        database = AdminDatabase(quick.database)
        with database.read() as tx:
            (found,) = key_pool.list_providers(tx)
        database.close()
        return found.injects_usage

    assert streams("--dialect", "openai")
    assert not streams("--dialect", "openai", "--no-stream-options")
    assert not streams("--dialect", "gemini")
    assert not streams("--dialect", "anthropic")
