"""Providers of the operator's own, on the command line: added, changed, removed."""

import pytest

from llmproxy.presets import RESERVED_NAMES
from tests.cli.conftest import Quick
from tests.support.books import Book

SECRET = "sk-proj-0123456789abcdefghijklmnop"
LOCAL = "http://127.0.0.1:11434/v1"
ADD = ("providers", "add", "ollama", "--base-url", LOCAL, "--dialect", "openai")


def test_a_server_that_needs_no_key_is_ready_with_one_command(quick: Quick) -> None:
    ran = quick.run(*ADD, "--no-key")
    assert (ran.code, ran.out) == (0, f"ollama is set up at {LOCAL}.\n")
    assert "catalog set ollama MODEL" in ran.err
    shown = quick.json("providers", "show", "ollama")
    assert (shown["state"], shown["dialect"], shown["base_url"]) == ("active", "openai", LOCAL)
    assert shown["stream_options"] is True
    assert [(key["name"], key["masked"]) for key in shown["keys"]] == [("none", "no key needed")]
    assert not (quick.home / "config" / "master.key").exists()
    doctor = {check["name"]: check for check in quick.json("doctor")["checks"]}
    assert doctor["master key"]["message"] == "none yet; made with the first provider key"
    assert doctor["providers"]["message"] == "ollama can be used"


def test_a_key_beside_no_key_is_refused_until_that_is_removed(quick: Quick) -> None:
    quick.ok(*ADD, "--no-key")
    err = quick.fails(4, "provider-keys", "add", "ollama", stdin=SECRET)
    assert "llmproxy provider-keys remove ollama none" in err
    quick.ok("provider-keys", "remove", "ollama", "none", "--yes")
    assert quick.json("providers", "show", "ollama")["state"] == "no_active_keys"
    quick.ok("provider-keys", "add", "ollama", stdin=SECRET)
    assert quick.json("providers", "show", "ollama")["state"] == "active"


def test_a_server_without_a_key_is_moved_without_a_master_key(quick: Quick) -> None:
    quick.ok(*ADD, "--no-key")
    quick.ok("providers", "set", "ollama", "--base-url", "http://127.0.0.1:9/v1")
    assert quick.json("providers", "show", "ollama")["base_url"] == "http://127.0.0.1:9/v1"
    # The first key of another provider still makes the master key.
    quick.ok("provider-keys", "add", "openai", stdin=SECRET)
    assert (quick.home / "config" / "master.key").exists()


def test_a_server_that_needs_a_key_says_so(quick: Quick) -> None:
    ran = quick.run(
        *("providers", "add", "gateway", "--base-url", "https://llm.example.com/v1/"),
        *("--dialect", "openai", "--no-stream-options"),
    )
    assert ran.out == "gateway is set up at https://llm.example.com/v1.\n"
    assert "It needs a key: llmproxy provider-keys add gateway" in ran.err
    shown = quick.json("providers", "show", "gateway")
    assert (shown["state"], shown["stream_options"]) == ("no_active_keys", False)
    assert quick.json("providers", "set", "gateway", "--stream-options")["stream_options"] is True
    assert "asked for usage" in quick.ok("providers", "set", "gateway", "--stream-options")
    quick.fails(2, "providers", "set", "gateway")


def test_anthropics_dialect_has_no_stream_options(quick: Quick) -> None:
    url = "https://llm.example.com/v1"
    ran = quick.run("providers", "add", "claudes", "--base-url", url, "--dialect", "anthropic")
    assert ran.code == 0
    assert f"requests go to {url}/v1/messages" in ran.err
    assert quick.json("providers", "show", "claudes")["stream_options"] is False
    err = quick.fails(4, "providers", "set", "claudes", "--stream-options")
    assert "has no stream_options" in err


def test_a_base_url_without_v1_is_remarked_on(quick: Quick) -> None:
    url = "http://127.0.0.1:11434"
    ran = quick.run("providers", "add", "x", "--base-url", url, "--dialect", "openai")
    assert f"under {url}/v1" in ran.err


@pytest.mark.parametrize("name", [*sorted(RESERVED_NAMES), "Ollama", "a b", "é", "-x", "x" * 65])
def test_names_that_cannot_be_in_a_path_are_refused(quick: Quick, name: str) -> None:
    url = ("--base-url", LOCAL, "--dialect", "openai")
    assert "name" in quick.fails(4, "providers", "add", *url, "--", name)


def test_what_is_known_is_not_added_again(quick: Quick) -> None:
    url = ("--base-url", LOCAL, "--dialect", "openai")
    assert "is known already" in quick.fails(4, "providers", "add", "together", *url)
    quick.ok(*ADD)
    assert "already" in quick.fails(4, *ADD)


def test_a_dialect_or_a_url_that_cannot_be_is_refused(quick: Quick) -> None:
    add = ("providers", "add", "x", "--base-url")
    assert "openai, anthropic, gemini" in quick.fails(2, *add, LOCAL, "--dialect", "ollama")
    assert "--allow-http" in quick.fails(4, *add, "http://10.0.0.7/v1", "--dialect", "openai")
    quick.ok(*add, "http://10.0.0.7/v1", "--dialect", "openai", "--allow-http")


def test_a_provider_is_removed_with_its_keys_when_that_is_said(quick: Quick) -> None:
    quick.ok(*ADD, "--no-key")
    err = quick.fails(2, "providers", "remove", "ollama")
    assert "ollama has 1 key and 0 open requests" in err
    assert quick.json("providers", "remove", "ollama", "--yes")["state"] == "removed"
    quick.fails(3, "providers", "show", "ollama")
    quick.fails(3, "providers", "remove", "ollama", "--yes")
    quick.ok(*ADD)
    quick.ok("providers", "remove", "ollama")  # without keys nothing is lost


def test_open_requests_are_asked_about_and_the_history_stays(quick: Quick, book: Book) -> None:
    quick.ok("provider-keys", "add", "openai", stdin=SECRET)
    book.settled()
    book.placed()
    before = quick.json("usage", "requests")
    assert "1 key and 1 open request." in quick.fails(2, "providers", "remove", "openai")
    quick.ok("providers", "remove", "openai", "--yes")
    assert quick.json("providers", "show", "openai")["state"] == "not_set_up"
    assert quick.json("usage", "requests") == before
    assert quick.json("ledger", "verify")["ok"]
    assert "openai" in quick.ok("explain", before[0]["id"])
