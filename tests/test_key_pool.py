"""Providers and their keys: stored states, and which key a request uses."""

import logging
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy import key_pool
from llmproxy.errors import NotFoundError, RefusedError, VaultError
from llmproxy.live_keys import Pool
from llmproxy.presets import check_base_url
from llmproxy.provider_events import (
    EVENTS_MAX,
    REASON_CHARS_MAX,
    ProviderEvent,
    add_event,
    list_events,
)
from llmproxy.storage.database import AdminDatabase, Tx
from llmproxy.vault import Vault, new_master_key
from tests.support.books import NOW_MS

SECRET = "sk-proj-0123456789"
HOUR_MS = 3_600_000


@pytest.fixture
def tx(tmp_path: Path) -> Iterator[Tx]:
    """One open transaction on a new database."""
    database = AdminDatabase(tmp_path / "data" / "llmproxy.db")
    with database.write() as tx:
        yield tx
    database.close()


@pytest.fixture(scope="module")
def vault() -> Vault:
    return Vault(new_master_key())


def add(
    tx: Tx,
    vault: Vault,
    *,
    provider: str = "openai",
    name: str | None = None,
    secret: str | None = None,
) -> int:
    """Store a key; each further one has another secret unless it is given."""
    if secret is None:
        secret = SECRET + "x" * len(key_pool.list_provider_keys(tx, provider))
    return key_pool.add_provider_key(
        tx, provider, secret, name=name, vault=vault, actor="cli:olga", now_ms=NOW_MS
    ).id


def load(pool: Pool, tx: Tx) -> Pool:
    pool.publish(key_pool.list_providers(tx), key_pool.list_provider_keys(tx))
    return pool


def names(pool: Pool, *, model: str = "m", user: int = 1, now_ms: int = NOW_MS) -> list[str]:
    return [key.name for key in pool.usable("openai", model, user, now_ms)]


def orders(users: range, key_ids: list[int]) -> dict[int, list[int]]:
    """In which order each user's requests would try keys."""
    pool = Pool(None)
    provider = key_pool.Provider(
        *(1, "openai", "openai", "http://x", False), *(None, None, None, None, None), 0
    )
    rows = [
        key_pool.ProviderKey(
            *(key_id, "openai", f"key-{key_id}", key_pool.KEYLESS, "", "active"),
            *(None, 0, None, "cli:olga", 0),
        )
        for key_id in key_ids
    ]
    pool.publish([provider], rows)
    return {user: [key.id for key in pool.usable("openai", "m", user, NOW_MS)] for user in users}


@given(st.lists(st.integers(1, 2**40), min_size=2, max_size=12, unique=True), st.data())
def test_a_key_that_comes_or_goes_moves_no_other(key_ids: list[int], data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(key_ids))
    users = range(1, 30)
    before, after = orders(users, key_ids), orders(users, [key for key in key_ids if key != gone])
    for user in users:
        assert after[user] == [key for key in before[user] if key != gone]


def test_users_are_spread_over_keys_evenly_enough() -> None:
    first = Counter(order[0] for order in orders(range(1, 2001), [1, 2, 3, 4]).values())
    assert all(300 <= first[key] <= 700 for key in (1, 2, 3, 4)), first


def test_the_order_is_the_same_in_every_process() -> None:
    program = "print([hash((user, key)) for user in range(9) for key in range(9)])"
    said = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "random")
    }
    assert said == {f"{[hash((user, key)) for user in range(9) for key in range(9)]}\n".encode()}


def test_a_presets_url_is_copied_into_its_row_at_first_use(tx: Tx) -> None:
    assert key_pool.list_providers(tx) == []
    provider = key_pool.ensure_provider(tx, "anthropic", now_ms=NOW_MS)
    assert (provider.dialect, provider.base_url) == ("anthropic", "https://api.anthropic.com")
    assert key_pool.list_providers(tx) == [provider]
    with pytest.raises(NotFoundError, match="Known: anthropic, cerebras"):
        key_pool.ensure_provider(tx, "nobody", now_ms=NOW_MS)


@pytest.mark.parametrize(
    "url",
    [
        *("https://api.openai.com/v1", "http://localhost:1/v1", "http://[::1]:8080"),
        *("http://127.0.0.9", "https://host.example:8443/a/b"),
    ],
)
def test_good_base_urls_are_taken_without_their_trailing_slash(url: str) -> None:
    assert check_base_url(url + "/", allow_http=False) == url


@pytest.mark.parametrize(
    "url",
    [
        *("", "api.openai.com", "ftp://x.example", "https://", "https://user:pw@x.example"),
        *("https://x.example/v1?key=1", "https://x.example/#a", "http://10.0.0.1", "file:///etc"),
        *("http://localhost.evil.example", "https://x.example:port", "https://[::1"),
        *("https://x .example", "https://x.example/\x1b[2J", "https://x.example:0"),
    ],
)
def test_other_base_urls_are_refused(url: str) -> None:
    with pytest.raises(RefusedError):
        check_base_url(url, allow_http=False)


def test_a_key_is_kept_sealed_and_named_in_turn(tx: Tx, vault: Vault) -> None:
    assert [add(tx, vault), add(tx, vault)] == [1, 2]
    add(tx, vault, name="team")
    keys = key_pool.list_provider_keys(tx, "openai")
    assert [key.name for key in keys] == ["key-1", "key-2", "team"]
    assert all(SECRET.encode() not in key.sealed for key in keys)
    assert len({key.sealed for key in keys}) == 3
    with pytest.raises(RefusedError, match="is taken"):
        add(tx, vault, name="team")
    with pytest.raises(RefusedError, match="is no name"):
        add(tx, vault, name="")


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("active", r"'team' of openai \(sk-proj-…6789\) is in use\.$"),
        ("disabled", r"is disabled\. Enable that .*: llmproxy provider-keys enable openai team$"),
        ("dead", r"is dead\. Enable that one"),
        ("out_of_quota", r"is out of quota\. Enable that one"),
    ],
)
def test_the_same_secret_is_stored_once_for_a_provider_whatever_its_state(
    tx: Tx, vault: Vault, state: str, said: str
) -> None:
    """A second one would undo that the first was disabled."""
    key_id = add(tx, vault, name="team", secret=SECRET)
    key_pool.set_key_state(tx, key_id, state, reason="x", actor="cli:olga", now_ms=NOW_MS)
    with pytest.raises(RefusedError, match=said) as refused:
        add(tx, vault, secret=SECRET)
    assert SECRET not in str(refused.value)
    assert len(key_pool.list_provider_keys(tx)) == 1
    # One that only looks the same, and another provider, are others.
    add(tx, vault, secret=SECRET[:8] + "-" + SECRET[9:])
    add(tx, vault, provider="groq", secret=SECRET)
    assert len({key.masked for key in key_pool.list_provider_keys(tx)}) == 1
    key_pool.remove_provider_key(tx, "openai", "team", actor="cli:olga", now_ms=NOW_MS)
    add(tx, vault, secret=SECRET)


def test_a_short_secret_is_compared_too(tx: Tx, vault: Vault) -> None:
    """Of it nothing is shown by which it could be told."""
    add(tx, vault, secret="01234567")
    add(tx, vault, secret="01234568")
    with pytest.raises(RefusedError, match="'key-2' of openai"):
        add(tx, vault, secret="01234568")


def test_a_key_that_cannot_be_opened_may_be_added_again(tx: Tx, vault: Vault) -> None:
    damaged = add(tx, vault, secret=SECRET)
    tx.execute("UPDATE provider_keys SET sealed = x'01ff' WHERE id = ?", (damaged,))
    add(tx, vault, secret=SECRET)
    assert [key.name for key in key_pool.list_provider_keys(tx)] == ["key-1", "key-2"]


def test_a_freed_name_is_given_again(tx: Tx, vault: Vault) -> None:
    add(tx, vault)
    add(tx, vault)
    key_pool.remove_provider_key(tx, "openai", "key-1", actor="cli", now_ms=NOW_MS)
    add(tx, vault, secret=SECRET)
    assert [key.name for key in key_pool.list_provider_keys(tx)] == ["key-2", "key-1"]
    with pytest.raises(NotFoundError):
        key_pool.remove_provider_key(tx, "openai", "key-3", actor="cli", now_ms=NOW_MS)


def test_moving_a_provider_seals_its_keys_for_the_new_place(tx: Tx, vault: Vault) -> None:
    add(tx, vault)
    with pytest.raises(VaultError, match="master key is needed"):
        key_pool.set_base_url(tx, "openai", "http://127.0.0.1", vault=None, now_ms=NOW_MS)
    key_pool.set_base_url(tx, "openai", "http://127.0.0.1", vault=vault, now_ms=NOW_MS)
    (key,) = load(Pool(vault), tx).usable("openai", "m", 1, NOW_MS)
    assert key.secret == SECRET


def test_a_row_that_somebody_pointed_elsewhere_is_not_used(
    tx: Tx, vault: Vault, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever can write the file cannot have the keys sent to their own server."""
    add(tx, vault)
    tx.execute("UPDATE providers SET base_url = 'https://evil.example'")
    with caplog.at_level(logging.ERROR):
        assert names(load(Pool(vault), tx)) == []
    assert "is not used" in caplog.text
    assert SECRET not in caplog.text


def test_without_a_master_key_no_key_is_usable(tx: Tx, vault: Vault) -> None:
    add(tx, vault)
    pool = load(Pool(None), tx)
    assert names(pool) == []
    assert not pool.has_usable_key(NOW_MS)


def test_pausing_keeps_why_since_when_and_by_whom(tx: Tx) -> None:
    paused = key_pool.pause_provider(
        tx, "openai", reason="unpaid " * 100, actor="cli:olga", now_ms=NOW_MS
    )
    assert (paused.paused_at_ms, paused.paused_by) == (NOW_MS, "cli:olga")
    assert len(paused.paused_reason or "") == REASON_CHARS_MAX
    resumed = key_pool.resume_provider(tx, "openai", actor="cli:olga", now_ms=NOW_MS)
    assert (resumed.paused_at_ms, resumed.paused_reason, resumed.paused_by) == (None, None, None)


@pytest.mark.parametrize("state", ["disabled", "dead", "out_of_quota"])
def test_a_key_out_of_service_is_not_used_until_it_is_active_again(
    tx: Tx, vault: Vault, state: str
) -> None:
    key_id = add(tx, vault)
    key_pool.set_key_state(tx, key_id, state, reason="why", actor="proxy", now_ms=NOW_MS)
    key = key_pool.find_provider_key(tx, "openai", "key-1")
    assert (key.state, key.state_reason, key.state_by) == (state, "why", "proxy")
    pool = load(Pool(vault), tx)
    assert names(pool, now_ms=NOW_MS + 100 * HOUR_MS) == []
    key_pool.set_key_state(tx, key_id, "active", reason=None, actor="cli", now_ms=NOW_MS)
    assert names(load(pool, tx)) == ["key-1"]


def test_a_parked_key_is_tried_again_when_its_time_has_come(tx: Tx, vault: Vault) -> None:
    key_id = add(tx, vault)
    until = NOW_MS + HOUR_MS
    key_pool.set_key_state(
        tx, key_id, "out_of_quota", reason="q", actor="proxy", now_ms=NOW_MS, until_ms=until
    )
    pool = load(Pool(vault), tx)
    assert names(pool, now_ms=until - 1) == []
    assert names(pool, now_ms=until) == ["key-1"]
    assert (pool.has_usable_key(until - 1), pool.has_usable_key(until)) == (False, True)


def test_a_cooling_key_rests_for_its_model_only_and_survives_a_reload(tx: Tx, vault: Vault) -> None:
    add(tx, vault)
    add(tx, vault)
    pool = load(Pool(vault), tx)
    first, second = pool.usable("openai", "m", 1, NOW_MS)
    assert pool.rest_left_ms("openai", "m", NOW_MS) is None
    assert first.rest("m", NOW_MS, 500) == 500
    assert names(load(pool, tx)) == [second.name]
    assert len(names(pool, model="other")) == 2
    assert pool.rest_left_ms("openai", "m", NOW_MS) == 500
    assert len(names(pool, now_ms=NOW_MS + 500)) == 2
    assert pool.rest_left_ms("openai", "m", NOW_MS + 500) is None


def test_a_clock_that_is_set_back_keeps_no_key_out(tx: Tx, vault: Vault) -> None:
    key_id = add(tx, vault)
    pool = load(Pool(vault), tx)
    (key,) = pool.usable("openai", "m", 1, NOW_MS)
    day_before = NOW_MS - 24 * HOUR_MS
    assert key.rest("m", NOW_MS, HOUR_MS) == HOUR_MS
    assert (key.is_resting(NOW_MS), key.is_resting(day_before)) == (True, False)
    assert names(pool, now_ms=day_before) == ["key-1"]
    assert pool.rest_left_ms("openai", "m", day_before) is None
    assert key.rest("m", day_before, None) == 60_000  # it is limited by the clock as it is now
    assert names(pool, now_ms=day_before + 60_000) == ["key-1"]
    until = NOW_MS + HOUR_MS
    key_pool.set_key_state(
        tx, key_id, "out_of_quota", reason="q", actor="proxy", now_ms=NOW_MS, until_ms=until
    )
    load(pool, tx)
    assert names(pool, model="other") == []
    assert names(pool, model="other", now_ms=day_before) == ["key-1"]


def test_a_rest_ends_where_its_provider_is_left(tx: Tx, vault: Vault) -> None:
    add(tx, vault)
    pool = load(Pool(vault), tx)
    (key,) = pool.usable("openai", "m", 1, NOW_MS)
    key.rest("m", NOW_MS, HOUR_MS)
    key_pool.set_base_url(tx, "openai", "http://127.0.0.1", vault=vault, now_ms=NOW_MS)
    assert names(load(pool, tx)) == ["key-1"]


def test_a_rest_that_nobody_told_grows_until_the_key_is_answered(tx: Tx, vault: Vault) -> None:
    add(tx, vault)
    (key,) = load(Pool(vault), tx).usable("openai", "m", 1, NOW_MS)
    now_ms = NOW_MS
    for wanted_s in (5, 10, 20, 40, 60, 60):
        assert key.rest("m", now_ms, None) == wanted_s * 1000
        # What was sent before it is refused too, and makes it no longer.
        assert key.rest("m", now_ms + 1000, None) == wanted_s * 1000 - 1000
        now_ms += wanted_s * 1000
    assert key.rest("other", now_ms, None) == 5_000  # that it rests for another changes nothing
    assert key.rest("m", now_ms + 1, None) == 60_000
    now_ms += 60_001
    key.note_answer("m", now_ms)
    assert key.rest("m", now_ms, None) == 5_000
    assert key.rest("m", now_ms, 9_000) == 9_000
    assert key.rest("m", now_ms, 1_000) == 9_000  # never sooner than told before
    key.note_answer("m", now_ms)  # of a request from before the rest: it goes on
    assert key.rest_left_ms("m", now_ms) == 9_000


def test_a_user_meets_the_same_key_first_and_users_are_spread(tx: Tx, vault: Vault) -> None:
    for _ in range(4):
        add(tx, vault)
    pool = load(Pool(vault), tx)
    assert all(names(pool, user=7) == names(pool, user=7) for _ in range(5))
    firsts = {names(pool, user=user)[0] for user in range(50)}
    assert len(firsts) == 4


def test_a_live_key_does_not_show_its_secret(tx: Tx, vault: Vault) -> None:
    add(tx, vault)
    (key,) = load(Pool(vault), tx).usable("openai", "m", 1, NOW_MS)
    assert SECRET not in repr(key)
    assert "key-1" in repr(key)


def test_the_history_keeps_every_state_with_why_and_by_whom(tx: Tx, vault: Vault) -> None:
    key_id = add(tx, vault)
    key_pool.set_key_state(
        tx, key_id, "dead", reason="401: no", actor="proxy", now_ms=2, upstream_status=401
    )
    key_pool.set_key_state(
        tx, key_id, "active", reason=None, actor="cli:olga", now_ms=3, only_from="disabled"
    )
    key_pool.pause_provider(
        tx, "openai", reason="503", actor="proxy", now_ms=4, until_ms=9, upstream_status=503
    )
    key_pool.pause_provider(tx, "openai", reason="503", actor="proxy", now_ms=9, until_ms=19)
    provider = key_pool.find_provider(tx, "openai")
    assert provider is not None
    assert (provider.paused_at_ms, provider.paused_until_ms) == (4, 19)
    assert not provider.is_paused_by_operator
    key_pool.pause_provider(tx, "openai", reason="unpaid", actor="cli:olga", now_ms=20)
    # The proxy's own word does not count against the operator's.
    key_pool.pause_provider(tx, "openai", reason="503", actor="proxy", now_ms=21, until_ms=29)
    key_pool.resume_provider(tx, "openai", actor="cli:olga", now_ms=30)
    key_pool.resume_provider(tx, "openai", actor="cli:olga", now_ms=31)  # it was not paused
    key_pool.remove_provider_key(tx, "openai", "key-1", actor="cli:olga", now_ms=40)
    events = list_events(tx, "openai", 100)[::-1]
    assert [(event.provider_key, event.state, event.actor) for event in events] == [
        ("key-1", "active", "cli:olga"),
        ("key-1", "dead", "proxy"),
        (None, "paused", "proxy"),
        (None, "paused", "proxy"),
        (None, "paused", "cli:olga"),
        (None, "active", "cli:olga"),
        ("key-1", "removed", "cli:olga"),
    ]
    assert (events[1].reason, events[1].upstream_status) == ("401: no", 401)
    assert (events[2].upstream_status, events[2].until_ms) == (503, 9)
    assert len(list_events(tx, "openai", 3)) == 3
    assert list_events(tx, "anthropic", 3) == []


def test_the_history_has_an_end(tx: Tx) -> None:
    for number in range(EVENTS_MAX + 5):
        add_event(tx, ProviderEvent("openai", None, "paused", str(number), None, None, "x", number))
    events = list_events(tx, "openai", 2 * EVENTS_MAX)
    assert (len(events), events[-1].reason) == (EVENTS_MAX, "5")
