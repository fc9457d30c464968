"""The master key where the operator has put it: what is said of it, and what waits beside it."""

import os
import shutil
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

from llmproxy import master_key
from llmproxy.errors import VaultError
from llmproxy.vault import Vault, new_master_key
from tests.cli.conftest import Program, Quick
from tests.cli.rekeying import SECRETS, fill, opened, path_of, seal_without_end


@pytest.fixture
def filled(quick: Quick) -> Quick:
    """Two providers with a key each, and one that needs none."""
    fill(quick)
    return quick


def test_behind_a_link_the_file_itself_is_changed(filled: Quick, tmp_path: Path) -> None:
    (apart := tmp_path / "stick").mkdir(mode=0o700)
    kept = path_of(filled).rename(apart / "kept.key")
    path_of(filled).symlink_to(kept)
    before = kept.read_text()
    done = filled.json("provider-keys", "rekey", "--yes")
    assert done["master_key"] == str(kept)
    assert path_of(filled).is_symlink()
    assert before != kept.read_text()
    assert opened(filled, Vault(kept.read_text())) == SECRETS
    # Cut short, what waits for its place waits there too.
    new = new_master_key()
    seal_without_end(filled, new, is_committed=True, path=kept)
    assert opened(filled) == SECRETS
    assert str(master_key.path_of_new(kept)) in filled.ok("doctor")
    filled.ok("provider-keys", "rekey", "--yes")
    assert opened(filled) == SECRETS
    assert [path.name for path in apart.iterdir()] == ["kept.key"]


def test_cut_short_beside_a_file_that_is_named_doctor_says_so_and_rekey_goes_on(
    filled: Quick, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    named = path_of(filled).rename(tmp_path / "elsewhere.key")
    monkeypatch.setenv("LLMPROXY_MASTER_KEY_FILE", str(named))
    seal_without_end(filled, new_master_key(), is_committed=True, path=named)
    waiting = master_key.path_of_new(named)
    assert f"{waiting}: a change of the master key was cut short" in filled.ok("doctor")
    filled.ok("provider-keys", "rekey", "--yes")
    assert not waiting.exists()
    assert f"{named}, mode 0600; opens 2 provider keys" in filled.ok("doctor")
    assert opened(filled) == SECRETS


def test_what_is_said_of_where_a_key_is_sealed_is_true(
    quick: Quick, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The file in its usual place is there all along, and used only at first."""
    add = ("provider-keys", "add", "openai")
    said = quick.run(*add, stdin="sk-openai-0123456789").err
    assert f"It is sealed under {path_of(quick)}: back that file up" in said
    quick.ok("provider-keys", "remove", "openai", "key-1", "--yes")
    named = tmp_path / "named.key"
    for path in (named, tmp_path / "llmproxy-master-key"):
        path.write_text(new_master_key())
        path.chmod(0o600)
    for variable, value, expected in (
        ("LLMPROXY_MASTER_KEY_FILE", named, f"under {named}: back that file up, apart"),
        (
            "CREDENTIALS_DIRECTORY",
            tmp_path,
            f"under the master key from {tmp_path}/llmproxy-master-key: keep a copy of it, apart",
        ),
        (
            "LLMPROXY_MASTER_KEY",
            new_master_key(),
            "under the master key from LLMPROXY_MASTER_KEY: keep a copy of it, apart",
        ),
    ):
        monkeypatch.setenv(variable, str(value))
        assert (
            f"It is sealed {expected} from the database." in quick.run(*add, stdin="sk-0123456").err
        )
        quick.ok("provider-keys", "remove", "openai", "key-1", "--yes")
        monkeypatch.delenv(variable)


def test_what_a_cut_short_change_left_is_told_of_beside_a_key_that_is_handed_over(
    filled: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMPROXY_MASTER_KEY", path_of(filled).read_text())
    assert "from LLMPROXY_MASTER_KEY; opens 2 provider keys" in filled.ok("doctor")
    master_key.write_new(path_of(filled), new_master_key())
    out = filled.ok("doctor")
    assert "nothing here is sealed under it" in out
    master_key.path_of_new(path_of(filled)).unlink()
    assert "nothing here is sealed" not in filled.ok("doctor")


def test_a_directory_that_is_closed_to_us_is_named_and_is_not_taken_for_an_empty_one(
    program: Program, tmp_path: Path
) -> None:
    assert program.run("provider-keys", "add", "openai", stdin="sk-0123456789").code == 0
    (closed := tmp_path / "closed").mkdir(mode=0)
    config = program.home / "config"
    config.chmod(0)
    run = partial(subprocess.run, env=program.environ, capture_output=True, text=True, check=False)
    if os.geteuid() == 0:
        bound = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
        if shutil.which("setpriv") is None or run([*bound, "true"]).returncode:
            pytest.skip("root cannot be kept out here")
    else:
        bound = []
    command = [*bound, sys.executable, "-m", "llmproxy"]
    add = run([*command, "provider-keys", "add", "groq"], input="sk-0123456789")
    doctor = run([*command, "doctor"])
    config.chmod(0o700)
    handed = {**program.environ, "CREDENTIALS_DIRECTORY": str(closed)}
    check = run([*command, "doctor"], env=handed)
    closed.chmod(0o700)
    assert f"The master key {config / 'master.key'} cannot be looked for" in add.stderr
    assert "cannot be looked for" in doctor.stdout
    assert "cannot be looked for" in check.stdout
    for ran in (add, doctor, check):
        assert (ran.returncode, "Traceback" in ran.stderr) == (1, False)


def test_where_only_the_new_key_is_left_it_is_named(filled: Quick) -> None:
    seal_without_end(filled, new_master_key(), is_committed=True)
    path_of(filled).unlink()
    move = f"mv {master_key.path_of_new(path_of(filled))} {path_of(filled)}"
    assert move in filled.fails(1, "provider-keys", "add", "groq", stdin="gsk-0123456789")
    assert move in " ".join(filled.run("doctor").out.split())
    master_key.path_of_new(path_of(filled)).rename(path_of(filled))
    assert opened(filled) == SECRETS


def test_a_key_from_a_pipe_is_read_once(program: Program, tmp_path: Path) -> None:
    """Whoever writes it writes it once: a second look would wait for ever, with the ledger held."""
    pipe, key = tmp_path / "pipe", new_master_key()
    os.mkfifo(pipe, 0o600)
    writer = threading.Thread(target=pipe.write_text, args=(key,))
    writer.start()
    add = ("provider-keys", "add", "openai")
    ran = program.run(*add, stdin="sk-one-0123456789", LLMPROXY_MASTER_KEY_FILE=str(pipe))
    writer.join()
    assert ran.code == 0, ran
    assert f"sealed under the master key from {pipe}: keep a copy of it" in " ".join(
        ran.err.split()
    )
    kept = tmp_path / "kept"
    kept.touch(0o600)
    kept.write_text(key)
    found = program.run("doctor", LLMPROXY_MASTER_KEY_FILE=str(kept))
    assert "opens 1 provider key" in found.out


def test_a_closed_directory_beside_a_key_from_the_environment_is_told(
    quick: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMPROXY_MASTER_KEY", new_master_key())
    quick.ok("provider-keys", "add", "openai", stdin="sk-one-0123456789")

    def closed(path: Path) -> bool:
        msg = f"{path} cannot be looked for"
        raise VaultError(msg)

    monkeypatch.setattr(master_key, "is_there", closed)
    ran = quick.run("doctor")
    assert "cannot be looked for" in ran.out
