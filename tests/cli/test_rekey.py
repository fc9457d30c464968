"""`provider-keys rekey`, and each state in which it can be cut short."""

import json
from pathlib import Path
from threading import Event, Thread

import pytest

from llmproxy import key_pool, master_key, sealing
from llmproxy.config import find_paths
from llmproxy.errors import VaultError
from llmproxy.storage.database import AdminDatabase
from llmproxy.vault import Vault, new_master_key
from tests.cli.conftest import Quick
from tests.cli.rekeying import SECRETS, fill, opened, path_of, seal_without_end


@pytest.fixture
def filled(quick: Quick) -> Quick:
    """Two providers with a key each, and one that needs none."""
    fill(quick)
    return quick


def test_a_new_master_key_opens_everything_and_the_old_one_nothing(filled: Quick) -> None:
    before = path_of(filled).read_text()
    done = filled.json("provider-keys", "rekey", "--yes")
    where = str(path_of(filled))
    assert done == {"sealed": 2, "master_key": where, "from": where}
    after = path_of(filled).read_text()
    assert after != before
    assert path_of(filled).stat().st_mode & 0o777 == 0o600
    assert not master_key.path_of_new(path_of(filled)).exists()
    assert opened(filled, Vault(after)) == SECRETS
    with pytest.raises(VaultError):
        opened(filled, Vault(before))
    out = filled.ok("provider-keys", "rekey", "--yes")
    assert "Sealed under a new master key: 2 provider keys." in out
    assert before.strip() not in out
    assert after.strip() not in out


def test_it_asks_and_without_a_yes_changes_nothing(filled: Quick) -> None:
    before = path_of(filled).read_text()
    assert "add --yes" in filled.fails(2, "provider-keys", "rekey")
    assert path_of(filled).read_text() == before


@pytest.mark.parametrize("is_committed", [False, True])
def test_cut_short_everything_opens_and_doctor_says_so(filled: Quick, is_committed: bool) -> None:
    seal_without_end(filled, new_master_key(), is_committed=is_committed)
    assert opened(filled) == SECRETS
    ran = filled.run("doctor")
    assert "a change of the master key was cut short" in ran.out


@pytest.mark.parametrize("is_committed", [False, True])
@pytest.mark.parametrize("command", ["add", "move", "rekey"])
def test_the_next_command_that_seals_does_it_with_the_right_key(
    filled: Quick, is_committed: bool, command: str
) -> None:
    old, new = path_of(filled).read_text(), new_master_key()
    seal_without_end(filled, new, is_committed=is_committed)
    expected = dict(SECRETS)
    if command == "add":
        filled.ok("provider-keys", "add", "xai", stdin="xai-0123456789")
        expected["xai"] = "xai-0123456789"
    elif command == "move":
        url = "https://gateway.example.com/v1"
        filled.ok("providers", "set", "openai", "--base-url", url, "--yes")
    else:
        filled.ok("provider-keys", "rekey", "--yes")
    present = path_of(filled).read_text()
    assert opened(filled, Vault(present)) == expected
    is_left = master_key.path_of_new(path_of(filled)).exists()
    if command == "rekey":
        assert present.strip() not in {old.strip(), new}
        assert not is_left
    else:
        assert present.strip() == (new if is_committed else old.strip())
        assert is_left is not is_committed


def test_a_new_key_that_was_cut_short_while_it_was_written_counts_for_nothing(
    filled: Quick,
) -> None:
    torn = master_key.path_of_new(path_of(filled))
    torn.write_text("ab" * 7)
    torn.chmod(0o600)
    assert opened(filled) == SECRETS
    filled.ok("provider-keys", "add", "xai", stdin="xai-0123456789")
    filled.ok("provider-keys", "rekey", "--yes")
    assert opened(filled) == {**SECRETS, "xai": "xai-0123456789"}
    assert not torn.exists()


def test_one_key_that_cannot_be_opened_stops_it_before_anything_is_changed(
    filled: Quick,
) -> None:
    before = path_of(filled).read_text()
    database = AdminDatabase(filled.database)
    with database.write() as tx:
        (key, _) = [one for one in key_pool.list_provider_keys(tx) if not one.is_keyless]
        tx.execute("UPDATE provider_keys SET sealed = x'0102' WHERE id = ?", (key.id,))
    with database.read() as tx:
        rows = tx.execute("SELECT id, sealed FROM provider_keys").fetchall()
    assert "cannot be opened" in filled.fails(1, "provider-keys", "rekey", "--yes")
    with database.read() as tx:
        assert tx.execute("SELECT id, sealed FROM provider_keys").fetchall() == rows
    database.close()
    assert path_of(filled).read_text() == before
    assert not master_key.path_of_new(path_of(filled)).exists()


def test_what_finishes_the_last_step_may_be_somebody_else(filled: Quick) -> None:
    """Between the commit and the last step another command may have done it: nothing is lost."""
    new = new_master_key()
    seal_without_end(filled, new, is_committed=True)
    database = AdminDatabase(filled.database)
    for _ in range(2):
        sealing.finish(database, find_paths())
        assert path_of(filled).read_text().strip() == new
    database.close()


def test_whoever_reads_while_the_new_key_takes_its_place_finds_one_of_the_two(
    tmp_path: Path,
) -> None:
    path = tmp_path / "master.key"
    path.touch(mode=0o600)
    is_over = Event()

    def change_it() -> None:
        for _ in range(3000):
            master_key.path_of_new(path).touch(mode=0o600)
            master_key.path_of_new(path).replace(path)
        is_over.set()

    changing = Thread(target=change_it)
    changing.start()
    try:
        while not is_over.is_set():
            assert master_key.read_new(path) in {None, ""}
            assert master_key.read(path) == ""
    finally:
        changing.join()


def test_a_new_key_that_others_can_read_is_refused_and_not_passed_over(filled: Quick) -> None:
    loose = master_key.path_of_new(path_of(filled))
    loose.write_text(new_master_key())
    loose.chmod(0o644)
    assert f"chmod 600 {loose}" in filled.fails(1, "provider-keys", "rekey", "--yes")


# --- nothing that is sealed ---


@pytest.fixture
def emptied(filled: Quick) -> Quick:
    """The keys are removed; what is left is a provider that needs none."""
    for provider in SECRETS:
        filled.ok("provider-keys", "remove", provider, "key-1", "--yes")
    return filled


@pytest.mark.parametrize("has_keyless", [False, True])
def test_with_nothing_sealed_the_new_master_key_takes_the_old_ones_place(
    emptied: Quick, has_keyless: bool
) -> None:
    if not has_keyless:
        emptied.ok("provider-keys", "remove", "ollama", "none", "--yes")
    old = path_of(emptied).read_text()
    assert emptied.json("provider-keys", "rekey", "--yes")["sealed"] == 0
    new = path_of(emptied).read_text()
    assert new != old
    assert not master_key.path_of_new(path_of(emptied)).exists()
    for provider, secret in SECRETS.items():
        emptied.ok("provider-keys", "add", provider, stdin=secret)
    assert opened(emptied, Vault(new)) == SECRETS
    assert path_of(emptied).read_text() == new


def test_cut_short_with_nothing_sealed_the_next_key_is_sealed_under_the_new_one(
    emptied: Quick,
) -> None:
    new = new_master_key()
    master_key.write_new(path_of(emptied), new)
    emptied.ok("provider-keys", "add", "openai", stdin=SECRETS["openai"])
    assert path_of(emptied).read_text().strip() == new
    assert not master_key.path_of_new(path_of(emptied)).exists()
    assert opened(emptied, Vault(new)) == {"openai": SECRETS["openai"]}


# --- a master key that is handed over ---


def test_one_from_the_environment_must_be_given_and_handed_over(
    filled: Quick, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    old, new = path_of(filled).read_text().strip(), new_master_key()
    path_of(filled).unlink()
    monkeypatch.setenv("LLMPROXY_MASTER_KEY", old)
    err = filled.fails(4, "provider-keys", "rekey", "--yes")
    assert "comes from LLMPROXY_MASTER_KEY" in err
    assert "--new-key-file" in err
    file = tmp_path / "new.key"
    file.write_text(new + "\n")
    done = filled.json("provider-keys", "rekey", "--new-key-file", str(file), "--yes")
    assert done == {"sealed": 2, "master_key": None, "from": "LLMPROXY_MASTER_KEY"}
    checks = json.loads(filled.run("doctor", "--json").out)["checks"]
    assert "master key" in [check["name"] for check in checks if check["status"] == "fail"]
    monkeypatch.setenv("LLMPROXY_MASTER_KEY", new)
    assert opened(filled) == SECRETS
    assert not path_of(filled).exists()


def test_one_from_the_service_manager_is_given_by_stdin(
    filled: Quick, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    credential = tmp_path / "llmproxy-master-key"
    path_of(filled).rename(credential)
    credential.chmod(0o440)  # as systemd leaves it, with a list of who may read it
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    new = new_master_key()
    ran = filled.run("provider-keys", "rekey", "--new-key-file", "-", "--yes", stdin=new)
    assert ran.code == 0, ran.err
    assert f"put the new master key where the old one comes from ({credential})" in ran.err
    credential.chmod(0o600)
    credential.write_text(new)
    assert opened(filled) == SECRETS


def test_a_file_that_is_named_is_changed_where_it_is(
    filled: Quick, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    named = tmp_path / "elsewhere.key"
    path_of(filled).rename(named)
    monkeypatch.setenv("LLMPROXY_MASTER_KEY_FILE", str(named))
    assert filled.json("provider-keys", "rekey", "--yes")["master_key"] == str(named)
    assert opened(filled) == SECRETS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere.key", "home"]


@pytest.mark.parametrize(
    ("given", "code", "says"),
    [("", 1, "64 hex digits"), ("zz" * 32, 1, "64 hex digits"), ("same", 4, "the present master")],
)
def test_what_cannot_be_the_new_master_key_is_refused(
    filled: Quick, tmp_path: Path, given: str, code: int, says: str
) -> None:
    before = path_of(filled).read_text()
    file = tmp_path / "new.key"
    file.write_text(before.upper() if given == "same" else given)
    err = filled.fails(code, "provider-keys", "rekey", "--new-key-file", str(file), "--yes")
    assert says in err
    assert path_of(filled).read_text() == before
    assert opened(filled) == SECRETS


def test_without_a_master_key_there_is_none_to_change(quick: Quick) -> None:
    quick.ok("users", "create", "ann")
    assert "There is no master key yet" in quick.fails(1, "provider-keys", "rekey", "--yes")


# --- a master key that is not the one in use ---


def test_nothing_is_sealed_under_the_old_key_of_a_shell_that_still_has_it(
    filled: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = path_of(filled).read_text().strip(), new_master_key()
    path_of(filled).unlink()
    monkeypatch.setenv("LLMPROXY_MASTER_KEY", old)
    filled.ok("provider-keys", "rekey", "--new-key-file", "-", "--yes", stdin=new)
    move = ("providers", "set", "openai", "--base-url", "https://gateway.example.com/v1", "--yes")
    for command in (("provider-keys", "add", "xai"), move, ("provider-keys", "rekey", "--yes")):
        ran = filled.run(*command, stdin="xai-0123456789")
        assert ran.code != 0
        assert "LLMPROXY_MASTER_KEY" in ran.err
    assert "opens none of the stored" in filled.fails(
        1, "provider-keys", "add", "xai", stdin="xai-0123456789"
    )
    monkeypatch.setenv("LLMPROXY_MASTER_KEY", new)
    filled.ok("provider-keys", "add", "xai", stdin="xai-0123456789")
    assert opened(filled, Vault(new)) == {**SECRETS, "xai": "xai-0123456789"}


@pytest.mark.parametrize("is_another_waiting", [False, True])
def test_under_a_file_that_opens_nothing_nothing_is_sealed_until_the_lost_keys_are_removed(
    filled: Quick, is_another_waiting: bool
) -> None:
    right, wrong = path_of(filled).read_text(), new_master_key()
    path_of(filled).write_text(wrong)
    if is_another_waiting:
        master_key.write_new(path_of(filled), new_master_key())
    add = ("provider-keys", "add", "xai")
    err = filled.fails(1, *add, stdin="xai-0123456789")
    assert f"{path_of(filled)} opens none" in err
    assert "provider-keys remove" in err
    assert path_of(filled).read_text() == wrong
    assert opened(filled, Vault(right)) == SECRETS
    for provider in SECRETS:
        filled.ok("provider-keys", "remove", provider, "key-1", "--yes")
    filled.ok(*add, stdin="xai-0123456789")
    assert opened(filled) == {"xai": "xai-0123456789"}


def test_one_damaged_key_does_not_keep_others_from_being_added(filled: Quick) -> None:
    database = AdminDatabase(filled.database)
    with database.write() as tx:
        tx.execute("UPDATE provider_keys SET sealed = x'0102' WHERE id = 1")
    database.close()
    filled.ok("provider-keys", "add", "xai", stdin="xai-0123456789")
    filled.ok("provider-keys", "remove", "openai", "key-1", "--yes")
    expected = {"anthropic": SECRETS["anthropic"], "xai": "xai-0123456789"}
    assert opened(filled) == expected
