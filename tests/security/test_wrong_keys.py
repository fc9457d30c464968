"""S21: guessing keys costs the guesser, and neither the database nor those who have one."""

import re
import socket
import time
from pathlib import Path

import pytest

from llmproxy import vault
from tests.proxy.conftest import running_site
from tests.proxy.helpers import CHAT, Site, chat
from tests.security.visit import Visit
from tests.service.helpers import ask

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def mutants(key: str) -> list[str]:
    """The key with one character changed, at every place behind the prefix."""
    found = []
    for place in range(len(vault.KEY_PREFIX), len(key)):
        letter = ALPHABET[(ALPHABET.index(key[place]) + 1) % len(ALPHABET)]
        found.append(key[:place] + letter + key[place + 1 :])
    return found


def test_no_key_with_one_wrong_character_is_well_formed() -> None:
    for _ in range(20):
        key = vault.new_api_key()
        assert vault.is_well_formed(key)
        assert not any(vault.is_well_formed(mutant) for mutant in mutants(key))


def test_no_key_with_one_wrong_character_lets_anybody_in(site: Site) -> None:
    visitor, visit = site.visitor(), Visit(site)
    for mutant in [*mutants(visitor.key), visitor.key[:-1], visitor.key + "0", visitor.key.lower()]:
        assert visit.ask("GET", "/v1/key", x_api_key=mutant)[0] == 401
    assert visit.ask("GET", "/v1/key", x_api_key=visitor.key)[0] == 200
    visit.close()


def commits(metrics_port: int) -> int:
    """How often the writer has had the database: a second look at a key is one of its turns."""
    said = ask(metrics_port, "GET", "/metrics").body.decode()
    found = re.search(r"^llmproxy_writer_commits_total (\d+)", said, re.MULTILINE)
    assert found is not None
    return int(found[1])


def test_a_mistyped_key_is_refused_without_a_look_at_the_database(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = int(server.getsockname()[1])
    with running_site(tmp_path, {"LLMPROXY_METRICS_PORT": str(port)}) as site:
        key, visit = site.visitor().key, Visit(site)
        assert visit.ask("GET", "/v1/key", x_api_key=key)[0] == 200
        before = commits(port)
        for mutant in mutants(key):
            assert visit.ask("GET", "/v1/key", x_api_key=mutant)[0] == 401
        assert commits(port) == before
        for _ in range(10):  # these could be keys that were made a moment ago
            assert visit.ask("GET", "/v1/key", x_api_key=vault.new_api_key())[0] == 401
        assert commits(port) == before + 10
        visit.close()


@pytest.mark.slow
def test_a_storm_of_wrong_keys_keeps_nobody_out(site: Site) -> None:
    """Ten thousand of them, a hundred well made, and a good request between every hundred."""
    visitor, visit = site.visitor(), Visit(site)
    bad, slowest_s = mutants(visitor.key), 0.0
    for _ in range(100):
        for place in range(99):
            key = bad[place % len(bad)]
            assert visit.ask("GET", "/v1/key", x_api_key=key)[0] == 401
        assert visit.ask("GET", "/v1/key", x_api_key=vault.new_api_key())[0] == 401
        began_s = time.monotonic()
        assert site.ask(visitor, CHAT, chat()).status == 200
        slowest_s = max(slowest_s, time.monotonic() - began_s)
    visit.close()
    assert slowest_s < 5  # finds what hangs; measured: some milliseconds
