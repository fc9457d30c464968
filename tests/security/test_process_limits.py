"""S2, S12: no core dump has a key in it, and clients that wait find a file for their connection."""

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmproxy.server.process_limits import OPEN_FILES
from tests.proxy.conftest import running_site
from tests.proxy.helpers import Site

SETTING = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from llmproxy.server.process_limits import set_process_limits
set_process_limits()
print(*resource.getrlimit(resource.RLIMIT_NOFILE), *resource.getrlimit(resource.RLIMIT_CORE)[:1])
"""


@pytest.mark.parametrize(("soft", "hard"), [(256, 1024), (512, 512), (1024, 1024)])
def test_files_may_be_as_many_as_the_system_allows(soft: int, hard: int) -> None:
    code = SETTING.format(soft=soft, hard=hard)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(hard), str(hard), "0"]


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[Site]:
    """A server that was started with few files, and where crashes write memory to disk."""
    kinds = (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE)
    before = {kind: resource.getrlimit(kind) for kind in kinds}
    (_, files), (_, core) = before.values()
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, files))
    resource.setrlimit(resource.RLIMIT_CORE, (core, core))
    try:
        with running_site(tmp_path, {}) as site:
            yield site
    finally:
        for kind, limits in before.items():
            resource.setrlimit(kind, limits)


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="needs Linux's /proc")
def test_the_running_server_has_these_limits(limited: Site) -> None:
    limits = Path(f"/proc/{limited.proxy.pid}/limits").read_text()
    line = {text[:25].strip(): text[25:].split() for text in limits.splitlines()}
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    assert line["Max open files"][0] == str(wanted)
    assert line["Max core file size"][0] == "0"


def test_the_servers_files_are_for_its_owner_alone(site: Site) -> None:
    """S24; the modes themselves: tests/service/test_lifecycle.py."""
    for path in site.proxy.home.rglob("*"):
        if path.name != "serve.log":  # the test's own
            assert path.stat().st_mode & 0o077 == 0, path
    assert (site.proxy.home / "data").stat().st_mode & 0o777 == 0o700
