"""The operator's pages about providers: paused, resumed, asked, and given keys."""

import os
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from stat import S_IMODE

import pytest

from llmproxy import key_pool, master_key
from llmproxy.clock import Clock
from llmproxy.config import find_paths
from llmproxy.provider_events import list_events
from llmproxy.vault import Vault, new_master_key
from tests.dashboard.helpers import Desk
from tests.proxy.conftest import running_site
from tests.proxy.helpers import Site, chat
from tests.service.helpers import Books, either
from tests.support.proxy import PROVIDER_KEY, RunningProxy
from tests.support.stub_provider import Out, SeenRequest, StubProvider
from tests.support.waiting import wait_until

PROVIDERS = "/dashboard/admin/providers"
OPENAI = f"{PROVIDERS}/openai"
SECRET = "sk-added-on-a-page-0123456789"


@pytest.fixture
def bare_desk(tmp_path: Path) -> Iterator[Desk]:
    """A dashboard of a proxy that was never given a provider key: it has no master key."""
    with StubProvider() as stub, RunningProxy(tmp_path) as proxy:
        stub.handle = either
        proxy.start()
        books = Books(tmp_path)
        try:
            with Desk(Site(proxy, stub, books)) as desk:
                yield desk
        finally:
            books.close()


def rows_of(html: str, label: str) -> list[str]:
    """Return the texts of the cells of a table, row by row."""
    section = html.partition(f'aria-label="{label}"')[2].partition("</section>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", section, re.DOTALL)[1:]
    return [" ".join(unescape(re.sub(r"<[^>]*>", " ", row)).split()) for row in rows]


def key_ids(desk: Desk, provider: str = "openai") -> dict[str, int]:
    with desk.books.database.read() as tx:
        return {key.name: key.id for key in key_pool.list_provider_keys(tx, provider)}


def test_a_paused_provider_is_refused_with_the_reason_until_it_is_resumed(own_desk: Desk) -> None:
    desk, boss = own_desk, own_desk.operator()
    _, key = desk.books.user()
    assert desk.ask(key) == 200
    answer = boss.submit(f"{OPENAI}/pause", reason=" invoice\u202e unpaid ")
    assert (answer.status_code, answer.headers["location"]) == (303, f"{OPENAI}?said=pause")
    refused = desk.site.proxy.post("/v1/openai/chat/completions", chat(), key)
    assert refused.status == 429
    message = refused.json()["message"]
    assert message == "Provider openai is paused: invoice unpaid. An administrator can resume it."
    page = boss.text(OPENAI)
    assert "invoice unpaid" in page
    assert f"by dashboard:{boss.name}" in page
    assert "Resume openai" in page
    assert f'<a href="{OPENAI}">openai</a>' in boss.text(PROVIDERS)
    boss.submit(f"{OPENAI}/resume")
    assert desk.ask(key) == 200
    assert desk.acts(f"dashboard:{boss.name}") == [
        ("providers pause", "openai --reason 'invoice unpaid'"),
        ("providers resume", "openai"),
    ]
    with desk.books.database.read() as tx:
        events = list_events(tx, "openai", 2)
    assert [(event.state, event.actor) for event in events] == [
        ("active", f"dashboard:{boss.name}"),
        ("paused", f"dashboard:{boss.name}"),
    ]


@pytest.mark.parametrize(("reason", "said"), [("", "Give a reason"), ("x" * 301, "at most 300")])
def test_a_pause_needs_a_reason(desk: Desk, reason: str, said: str) -> None:
    boss = desk.operator()
    answer = boss.submit(f"{OPENAI}/pause", reason=reason)
    assert (answer.status_code, said in answer.text) == (422, True)
    assert f'value="{reason}"' in answer.text
    _, key = desk.books.user()
    assert desk.ask(key) == 200


def test_a_key_that_is_added_serves_the_next_request(own_desk: Desk) -> None:
    desk, boss = own_desk, own_desk.operator()
    _, key = desk.books.user()
    old = key_ids(desk)["key-1"]
    boss.submit(f"{OPENAI}/keys/{old}/disable")
    assert desk.ask(key) == 503
    for _ in range(5):
        answer = boss.submit(f"{OPENAI}/keys", secret=f" {SECRET} ", name="team")
        assert (answer.status_code, answer.headers["location"]) == (303, f"{OPENAI}?said=add")
        assert desk.ask(key) == 200
        assert desk.site.last_request().header("authorization") == f"Bearer {SECRET}".encode()
        boss.submit(f"{OPENAI}/keys/{key_ids(desk)['team']}/remove")
        assert desk.ask(key) == 503
    boss.submit(f"{OPENAI}/keys/{old}/enable")
    assert desk.ask(key) == 200
    assert desk.site.last_request().header("authorization") == f"Bearer {PROVIDER_KEY}".encode()
    assert desk.acts(f"dashboard:{boss.name}") == [
        ("provider-keys disable", "openai key-1"),
        *[
            ("provider-keys add", "openai --name team"),
            ("provider-keys remove", "openai team"),
        ]
        * 5,
        ("provider-keys enable", "openai key-1"),
    ]


def test_the_same_key_is_not_added_twice_and_the_page_says_which_one_it_is(own_desk: Desk) -> None:
    desk, boss = own_desk, own_desk.operator()
    assert boss.submit(f"{OPENAI}/keys", secret=SECRET, name="team").status_code == 303
    again = boss.submit(f"{OPENAI}/keys", secret=SECRET, name="other")
    assert again.status_code == 422
    assert "'team' of openai (sk-added…6789) is in use." in unescape(again.text)
    assert 'value="other"' in again.text  # what was typed
    boss.submit(f"{OPENAI}/keys/{key_ids(desk)['team']}/disable")
    again = boss.submit(f"{OPENAI}/keys", secret=SECRET)
    assert "is disabled. Enable that one instead of adding it again.</p>" in again.text
    assert set(key_ids(desk)) == {"key-1", "team"}
    # At another provider it may be one.
    assert boss.submit(f"{PROVIDERS}/groq/keys", secret=SECRET).status_code == 303


def test_a_provider_without_a_key_gets_one_when_that_is_removed(own_desk: Desk) -> None:
    desk, boss = own_desk, own_desk.operator()
    own = ("own", "--base-url", "http://127.0.0.1:9/v1", "--dialect", "openai")
    desk.run("providers", "add", *own, "--no-key")
    told = boss.submit(f"{PROVIDERS}/own/keys", secret=SECRET)
    assert "If it does now, remove its key first.</p>" in told.text
    assert "llmproxy " not in told.text
    (only,) = re.findall(rf'action="({PROVIDERS}/own/keys/\d+/remove)"', told.text)
    assert boss.submit(only).status_code == 303
    assert boss.submit(f"{PROVIDERS}/own/keys", secret=SECRET).status_code == 303


def test_a_secret_is_in_no_page_no_log_and_no_file(own_desk: Desk) -> None:
    desk, boss = own_desk, own_desk.operator()
    answers = [
        boss.submit(f"{OPENAI}/keys", secret=SECRET),
        boss.submit(f"{OPENAI}/keys", secret=SECRET, name="<b>"),
        boss.submit(f"{OPENAI}/keys", secret=SECRET, name="key-1"),
        boss.submit(f"{OPENAI}/keys", secret=SECRET + " with a space"),
        boss.submit(f"{PROVIDERS}/nobody/keys", secret=SECRET),
        boss.post(f"{OPENAI}/keys", data={"secret": SECRET}),
        desk.signed_in().submit(f"{OPENAI}/keys", secret=SECRET),
        boss.get(OPENAI),
        boss.get(PROVIDERS),
        boss.submit(f"{OPENAI}/check"),
    ]
    assert [answer.status_code for answer in answers] == [
        *(303, 422, 422, 422, 404, 403, 403, 200, 200, 200)
    ]
    assert "sk-added…6789" in answers[7].text
    for answer in answers:
        assert SECRET not in answer.text
        assert SECRET not in str(answer.headers)
    desk.books.database.checkpoint_unless_served()
    files = [path for path in desk.site.proxy.home.rglob("*") if path.is_file()]
    assert {"serve.log", "llmproxy.db", "llmproxy.db-wal"} <= {path.name for path in files}
    for path in files:
        assert SECRET.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"secret": ""}, "That is no provider key"),
        ({"secret": "short"}, "That is no provider key"),
        ({"secret": "schlüssel-0123456789"}, "That is no provider key"),
        ({"secret": SECRET, "name": "key-1"}, "'key-1' is taken"),
        ({"secret": SECRET, "name": "a/b"}, "'a/b' is no name"),
    ],
)
def test_what_is_no_key_is_not_stored_and_its_name_is_kept(
    desk: Desk, fields: dict[str, str], said: str
) -> None:
    boss, before = desk.operator(), key_ids(desk)
    answer = boss.submit(f"{OPENAI}/keys", **{"name": "typed", **fields})
    assert answer.status_code == 422
    page = unescape(answer.text)
    assert said in page
    assert f'name="name" maxlength="64" value="{fields.get("name", "typed")}"' in page
    assert re.search(r'name="secret" type="password"[^>]*autocomplete="off"', page)
    assert key_ids(desk) == before
    assert desk.acts(f"dashboard:{boss.name}") == []


def test_the_first_key_of_all_sets_its_provider_up_and_makes_the_master_key(
    bare_desk: Desk,
) -> None:
    desk, boss = bare_desk, bare_desk.operator()
    path = find_paths(desk.site.proxy.environ).master_key
    assert not path.exists()
    assert "No provider is set up yet" in boss.text(PROVIDERS)
    assert f'href="{OPENAI}"' in boss.text(PROVIDERS)
    assert "the first one sets openai up" in boss.text(OPENAI)
    assert boss.submit(f"{OPENAI}/keys", secret="short").status_code == 422
    assert boss.submit(f"{OPENAI}/keys", secret=SECRET).status_code == 303
    assert S_IMODE(path.stat().st_mode) == 0o600
    assert master_key.read(path)
    # The command line opens what the page has sealed, and the server goes on with it.
    url = f"{desk.site.stub.url}/v1"
    desk.run("providers", "set", "openai", "--base-url", url, "--yes")
    _, key = desk.books.user()
    assert desk.ask(key) == 200
    assert desk.site.last_request().header("authorization") == f"Bearer {SECRET}".encode()


def test_without_its_master_key_nothing_more_is_sealed(own_desk: Desk) -> None:
    desk, boss = own_desk, own_desk.operator()
    path = find_paths(desk.site.proxy.environ).master_key
    text = path.read_text()
    path.unlink()
    answer = boss.submit(f"{OPENAI}/keys", secret=SECRET)
    assert answer.status_code == 422
    assert "The master key that 2 stored provider keys are sealed under is missing" in answer.text
    assert not path.exists()
    checked = boss.submit(f"{OPENAI}/check").text
    assert "its master key is missing" in checked
    master_key.write_new(path, text)
    master_key.put_in_place(path)
    assert boss.submit(f"{OPENAI}/keys", secret=SECRET).status_code == 303


def test_what_is_overloaded_can_be_let_through_again_and_nothing_else(tmp_path: Path) -> None:
    """Pages know it from the server alone: in the database the provider is active."""
    button = "Let all of it through again"

    async def busy(request: SeenRequest, out: Out) -> None:
        del request
        await out.json(503, {"error": {"message": "overloaded"}}, [("retry-after", "60")])

    with running_site(tmp_path, {"LLMPROXY_PAUSE_AFTER_FAILURES": "1"}) as site, Desk(site) as desk:
        _, key = desk.books.user()
        boss = desk.operator()
        assert button not in boss.text(OPENAI)
        site.stub.handle = busy
        assert desk.ask(key) == 503
        assert button in boss.text(OPENAI)
        assert button not in boss.text(f"{PROVIDERS}/anthropic")
        site.stub.handle = either
        assert desk.ask(key) != 200
        boss.submit(f"{OPENAI}/resume")
        assert desk.ask(key) == 200
        assert button not in boss.text(OPENAI)


def test_a_master_key_that_comes_through_a_pipe_is_not_waited_for(own_desk: Desk) -> None:
    desk, boss = own_desk, own_desk.operator()
    path = find_paths(desk.site.proxy.environ).master_key
    text = path.read_text()
    path.unlink()
    os.mkfifo(path, 0o600)
    answer = boss.submit(f"{OPENAI}/keys", secret=SECRET)
    assert (answer.status_code, "says it only once" in answer.text) == (422, True)
    assert "says it only once" in boss.submit(f"{OPENAI}/check").text
    # The server looks for another master key itself where its own does not open a key.
    now_ms = Clock().now_ms()
    with desk.books.write() as tx:
        strange = Vault(new_master_key())
        key_pool.add_provider_key(
            *(tx, "openai", SECRET), name="strange", vault=strange, actor="x", now_ms=now_ms
        )
    log = desk.site.proxy.log
    wait_until(lambda: "provider key strange of openai is not used" in log.read_text())
    _, key = desk.books.user()
    assert desk.ask(key) == 200
    path.unlink()
    master_key.write_new(path, text)
    master_key.put_in_place(path)


def test_what_is_not_there_is_missing(desk: Desk) -> None:
    boss = desk.operator()
    before = key_ids(desk)
    anthropics = key_ids(desk, "anthropic")["key-1"]
    for path in ("nobody", "%3Cb%3E", "%2e%2e", "nobody/keys"):
        assert boss.get(f"{PROVIDERS}/{path}").status_code in {404, 405}, path
    for path in (
        *("nobody/pause", "nobody/resume", "nobody/check", "nobody/keys", "mistral/check"),
        f"openai/keys/{anthropics}/remove",
        f"openai/keys/{anthropics}/disable",
        "openai/keys/999999/enable",
        f"openai/keys/{before['key-1']}/nothing",
    ):
        answer = boss.submit(f"{PROVIDERS}/{path}", secret=SECRET, reason="x")
        assert answer.status_code == 404, path
    assert key_ids(desk) == before
    assert key_ids(desk, "anthropic")
    assert desk.acts(f"dashboard:{boss.name}") == []


def test_why_a_key_was_taken_out_and_by_which_answer_is_told(desk: Desk) -> None:
    boss, now_ms = desk.operator(), Clock().now_ms()
    with desk.books.write() as tx:
        (key,) = key_pool.list_provider_keys(tx, "anthropic")
        key_pool.set_key_state(
            tx, key.id, "out_of_quota", reason="429: quota", actor="proxy", now_ms=now_ms,
            upstream_status=429,
        )  # fmt: skip
    try:
        page = boss.text(f"{PROVIDERS}/anthropic")
        (row,) = rows_of(page, "Keys")
        assert "out of quota 429: quota (HTTP 429)" in row
        listed = boss.text(PROVIDERS)
        assert "key-1: 429: quota" in listed
        assert "no active keys" in listed
    finally:
        boss.submit(f"{PROVIDERS}/anthropic/keys/{key.id}/enable")
    assert "out_of_quota" not in boss.text(PROVIDERS)


def test_the_acts_of_pages_are_noted_in_the_words_of_the_commands(own_desk: Desk) -> None:
    desk, boss, run = own_desk, own_desk.operator(), own_desk.run
    before = desk.books.count("SELECT count(*) FROM audit_log")
    run("provider-keys", "add", "openai", "--name", "my key", stdin=SECRET)
    run("provider-keys", "disable", "openai", "my key")
    run("provider-keys", "enable", "openai", "my key")
    run("provider-keys", "remove", "openai", "my key", "--yes")
    run("providers", "pause", "openai", "--reason", "it's late")
    run("providers", "resume", "openai")
    boss.submit(f"{OPENAI}/keys", secret=SECRET, name="my key")
    key = f"{OPENAI}/keys/{key_ids(desk)['my key']}"
    for act in ("disable", "enable", "remove"):
        boss.submit(f"{key}/{act}")
    boss.submit(f"{OPENAI}/pause", reason="it's late")
    boss.submit(f"{OPENAI}/resume")
    with desk.books.database.read() as tx:
        rows = tx.execute("SELECT actor LIKE 'cli:%', act, details FROM audit_log ORDER BY id")
        noted = [tuple(row) for row in rows][before:]
    typed = [row[1:] for row in noted if row[0]]
    assert len(typed) == 6
    assert [row[1:] for row in noted if not row[0]] == typed
    assert SECRET not in str(noted)


def test_pages_stay_small_with_many_providers_keys_and_events(own_desk: Desk) -> None:
    desk, boss, now_ms = own_desk, own_desk.operator(), Clock().now_ms()
    with desk.books.write() as tx:
        provider = key_pool.find_provider(tx, "openai")
        assert provider is not None
        for n in range(150):
            tx.execute(
                """INSERT INTO providers(name, dialect, base_url, injects_usage, created_at_ms,
                                         paused_at_ms, paused_reason, paused_by)
                   VALUES(?, 'openai', 'https://x.example', 1, ?, ?, ?, 'proxy')""",
                (f"p{n}-" + "x" * 58, now_ms, now_ms, "r" * 300),
            )
        for n in range(60):
            tx.execute(
                """INSERT INTO provider_keys(provider_id, name, sealed, masked, state,
                     state_reason, state_since_ms, state_by, created_at_ms)
                   VALUES(?, ?, x'', 'sk-…', 'dead', ?, ?, 'proxy', ?)""",
                (provider.id, f"k{n}", "r" * 300, now_ms, now_ms),
            )
    for path in (PROVIDERS, OPENAI):
        assert len(boss.get(path).content) < 50_000, path
    assert "1–20 of 61" in boss.text(OPENAI)
    assert "And 102 more" in boss.text(PROVIDERS)
