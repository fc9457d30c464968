"""`provider-keys rekey` where the master key's file cannot be replaced, or fails to be."""

import errno
import os
import shutil
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from llmproxy import master_key
from llmproxy.vault import Vault, new_master_key
from tests.cli.conftest import Quick, Ran
from tests.cli.rekeying import SECRETS, fill, opened, path_of

MOUNTED = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'


def run_mounted(source: Path, target: Path, *command: str) -> Ran:
    """Run a command that sees one file mounted over another, as a container has its secrets."""
    apart = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", MOUNTED, "sh")
    line = [*apart, str(source), str(target), *command]
    done = subprocess.run(line, capture_output=True, text=True, timeout=30, check=False)
    return Ran(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def filled(quick: Quick) -> Quick:
    """Two providers with a key each, and one that needs none."""
    fill(quick)
    return quick


@pytest.fixture
def mounted(filled: Quick, tmp_path: Path) -> Path:
    """The master key's file outside of the container that it is to be mounted into."""
    outside = tmp_path / "outside.key"
    outside.write_text(path_of(filled).read_text())
    outside.chmod(0o600)
    if shutil.which("unshare") is None or run_mounted(outside, path_of(filled), "true").code:
        pytest.skip("nothing can be mounted here")
    return outside


def test_a_file_that_is_a_mount_is_found_out_before_anything_is_changed(
    filled: Quick, mounted: Path, tmp_path: Path
) -> None:
    llmproxy = (mounted, path_of(filled), sys.executable, "-m", "llmproxy")
    before = mounted.read_text()
    ran = run_mounted(*llmproxy, "provider-keys", "rekey", "--yes")
    assert ran.code == 4, ran
    assert f"{path_of(filled)}, which llmproxy cannot change" in ran.err
    assert "--new-key-file" in ran.err
    assert not master_key.path_of_new(path_of(filled)).exists()
    assert mounted.read_text() == before
    assert opened(filled, Vault(before)) == SECRETS
    # What it advises works: the operator puts the new one where it is mounted from.
    new = tmp_path / "new.key"
    new.write_text(new_master_key())
    ran = run_mounted(*llmproxy, "provider-keys", "rekey", "--yes", "--new-key-file", str(new))
    assert ran.code == 0, ran
    assert f"where the old one comes from ({path_of(filled)})" in ran.err
    assert not master_key.path_of_new(path_of(filled)).exists()
    assert opened(filled, Vault(new.read_text())) == SECRETS
    mounted.write_text(new.read_text())
    ran = run_mounted(*llmproxy, "doctor")
    assert "opens 2 provider keys" in ran.out


def fail_replacing(monkeypatch: pytest.MonkeyPatch, failing: set[int], code: int) -> None:
    """Let some of the renames that follow fail, counted from 1."""
    replace, numbers = os.replace, count(1)

    def replace_or_fail(source: Path, target: Path) -> None:
        if next(numbers) in failing:
            raise OSError(code, os.strerror(code))
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_or_fail)


def test_what_fails_after_the_commit_names_the_file_that_the_keys_are_sealed_under(
    filled: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file system does so at will: the rename that was tried out fails when it is due."""
    old, waiting = path_of(filled).read_text(), master_key.path_of_new(path_of(filled))
    fail_replacing(monkeypatch, {2, 3}, errno.EBUSY)
    err = " ".join(filled.fails(1, "provider-keys", "rekey", "--yes").split())
    assert "All provider keys are sealed under the new master key" in err
    assert f"is in {waiting}: keep that file" in err
    assert path_of(filled).read_text() == old
    new = waiting.read_text()
    assert opened(filled, Vault(new)) == SECRETS
    add = ("provider-keys", "add", "xai")
    err = " ".join(filled.fails(1, *add, stdin="xai-0123456789").split())
    assert f"sealed under {waiting} already" in err
    filled.ok(*add, stdin="xai-0123456789")
    assert path_of(filled).read_text() == new
    assert opened(filled, Vault(new)) == {**SECRETS, "xai": "xai-0123456789"}


def test_a_disk_that_is_full_is_told_apart_and_leaves_no_copy(
    filled: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_replacing(monkeypatch, {1}, errno.ENOSPC)
    rekey = ("provider-keys", "rekey", "--yes", "--new-key-file", "-")
    err = filled.fails(1, *rekey, stdin=new_master_key())
    assert os.strerror(errno.ENOSPC) in err
    assert not master_key.path_of_new(path_of(filled)).exists()
    assert opened(filled) == SECRETS
