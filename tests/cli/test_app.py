"""The root of the command line: help, start-up, exit codes, and what looks after the machine."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from llmproxy import __version__
from llmproxy.cli.app import app
from llmproxy.cli.doctor import has_wal_reset_bug
from llmproxy.key_pool import set_key_state
from llmproxy.storage.database import SCHEMA_VERSION, AdminDatabase, connect
from tests.cli.conftest import Program, Quick
from tests.cli.test_providers import SECRET

HEAVY = ("litestar", "httpx", "uvicorn", "sqlite_utils", "cryptography", "httptools", "rich")


def commands(command: Any, *names: str) -> Iterator[tuple[str, ...]]:  # noqa: ANN401 - Typer's own
    """Every command by its words."""
    if not hasattr(command, "commands"):
        yield names
        return
    for name, inner in command.commands.items():
        yield from commands(inner, *names, name)


def test_the_help_loads_nothing_heavy(program: Program) -> None:
    code = (
        "import sys; from llmproxy.cli.app import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    ran = program.run_python(code)
    assert ran.err == "[]\n"


def test_ordinary_commands_load_neither_server_nor_http(program: Program) -> None:
    program.run("users", "create", "ann")
    code = (
        "import sys; from llmproxy.cli.app import app\n"
        "try: app(['users', 'list'])\n"
        "except SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    assert program.run_python(code).err == "[]\n"


@pytest.mark.parametrize("words", list(commands(get_command(app))), ids=" ".join)
def test_every_command_has_help_with_an_example(quick: Quick, words: tuple[str, ...]) -> None:
    long, short = quick.ok(*words, "--help"), quick.ok(*words, "-h")
    assert long == short
    assert "Example" in long
    assert f"llmproxy {' '.join(words)}" in long.partition("Example")[2]


def test_the_version_is_printed(program: Program) -> None:
    assert program.run("--version") == (0, f"llmproxy {__version__}\n", "")


def test_a_typing_mistake_is_answered_with_a_suggestion(program: Program) -> None:
    ran = program.run("user", "list")
    assert ran.code == 2
    assert "Did you mean 'users'" in ran.err
    assert "--limit" in program.run("users", "list", "--limt", "3").err


def test_a_persons_mistake_is_one_line_without_a_traceback(program: Program) -> None:
    ran = program.run("users", "show", "zoe")
    assert ran == (3, "", "Error: There is no user 'zoe'. See: llmproxy users list\n")


def test_a_database_that_is_none_ends_with_its_own_code(program: Program) -> None:
    program.run("users", "create", "ann")
    program.database.write_bytes(b"not a database at all, by no means" * 100)
    ran = program.run("users", "list")
    assert ran.code == 5
    assert ran.err.startswith("Error: The database")
    assert "Traceback" not in ran.err


def test_a_damaged_page_met_while_reading_ends_with_the_databases_code(program: Program) -> None:
    program.run("users", "create", "ann")
    connection = connect(program.database)
    query = "SELECT rootpage FROM sqlite_schema WHERE name = 'users'"
    page = connection.execute(query).fetchone()[0] - 1
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()
    content = bytearray(program.database.read_bytes())
    content[page * 4096 : page * 4096 + 100] = b"\xff" * 100
    program.database.write_bytes(content)
    ran = program.run("users", "list")
    assert ran.code == 5, ran
    assert "llmproxy doctor" in ran.err
    assert "Traceback" not in ran.err


def test_a_wrong_setting_is_wrong_usage(program: Program) -> None:
    ran = program.run("config", "show", LLMPROXY_PORT="http")
    assert ran.code == 2
    assert "LLMPROXY_PORT" in ran.err


def test_a_closed_pipe_is_no_accident(program: Program) -> None:
    ran = program.run_shell("-m llmproxy catalog list --limit 0 --json | head -n 1")
    assert ran.out == "[\n"
    assert "Traceback" not in ran.err


def test_an_interrupt_ends_with_130(program: Program) -> None:
    code = (
        "import llmproxy.cli.opening as opening\n"
        "from llmproxy.cli.app import main\n"
        "import sys; sys.argv = ['llmproxy', 'users', 'list']\n"
        "def interrupted(*_): raise KeyboardInterrupt\n"
        "opening.reading = interrupted\n"
        "main()"
    )
    ran = program.run_python(code)
    assert ran.code == 130
    assert "Traceback" not in ran.err


def test_settings_are_shown_with_their_origin(
    quick: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMPROXY_PORT", "9000")
    shown = quick.json("config", "show")
    assert shown["settings"]["port"] == {"value": 9000, "from": "LLMPROXY_PORT"}
    assert shown["settings"]["host"] == {"value": "127.0.0.1", "from": "default"}
    assert shown["paths"]["database"] == str(quick.database)
    assert "not there yet" in quick.ok("config", "show")


def test_of_paths_and_master_key_only_the_origin_is_shown(
    quick: Quick, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def origin() -> str | None:
        found: str | None = quick.json("config", "show")["master_key_from"]
        return found

    assert origin() is None
    assert quick.json("config", "show")["paths_from"] == "LLMPROXY_HOME"
    quick.ok("provider-keys", "add", "openai", stdin=SECRET)
    assert origin() == str(quick.home / "config" / "master.key")
    credential = tmp_path / "llmproxy-master-key"
    credential.write_text("ab" * 32)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert origin() == str(credential)
    monkeypatch.setenv("LLMPROXY_MASTER_KEY_FILE", "/somewhere/else")
    assert origin() == "/somewhere/else"
    monkeypatch.setenv("LLMPROXY_MASTER_KEY", "cd" * 32)
    assert origin() == "LLMPROXY_MASTER_KEY"
    shown = quick.ok("config", "show") + quick.ok("config", "show", "--json")
    assert "cdcd" not in shown
    assert "abab" not in shown


def test_the_catalog_is_listed_and_searched(quick: Quick) -> None:
    rows = quick.json("catalog", "list", "--limit", "0")
    assert {row["provider"] for row in rows} >= {"openai", "anthropic"}
    assert list(rows[0]) == [
        "provider",
        "id",
        "aliases",
        "mode",
        "in_price",
        "out_price",
        "prices",
        "multiplier",
        "max_input_tokens",
        "max_output_tokens",
        "own",
    ]
    found = quick.json("catalog", "list", "--provider", "openai", "--search", "GPT-4O-MINI")
    assert found[0]["id"] == "gpt-4o-mini"
    assert all(isinstance(row["in_price"], str) for row in rows)
    assert quick.run("catalog", "list", "--search", "no-such-model").out == ""


def test_a_model_is_shown_by_id_or_alias_and_a_near_miss_is_named(quick: Quick) -> None:
    model = next(row for row in quick.json("catalog", "list", "--limit", "0") if row["aliases"])
    alias = f"{model['provider']}/{model['aliases'][0]}"
    assert quick.json("catalog", "show", alias)["id"] == model["id"]
    assert model["id"] in quick.ok("catalog", "show", alias)
    assert "Nearest: openai/gpt-4o-mini" in quick.fails(3, "catalog", "show", "openai/gpt-4o-mni")


@pytest.mark.parametrize(
    ("version", "has_bug"),
    [
        *(((3, 40, 1), True), ((3, 44, 5), True), ((3, 44, 6), False), ((3, 45, 3), True)),
        *(((3, 50, 6), True), ((3, 50, 7), False), ((3, 51, 2), True), ((3, 51, 3), False)),
        *(((3, 52, 0), False), ((4, 0, 0), False)),
    ],
)
def test_sqlites_with_the_wal_reset_bug_are_known(version: tuple[int, ...], has_bug: bool) -> None:
    assert has_wal_reset_bug(version) is has_bug


def statuses(quick: Quick) -> dict[str, str]:
    return {check["name"]: check["status"] for check in quick.json("doctor")["checks"]}


def test_doctor_on_a_new_machine_says_what_to_do_and_makes_nothing(quick: Quick) -> None:
    checks = {check["name"]: check for check in quick.json("doctor")["checks"]}
    assert checks["database"]["status"] == "warn"
    assert "users create" in checks["database"]["advice"]
    assert not quick.home.exists()


def test_doctor_finds_a_working_set_up_in_order(quick: Quick) -> None:
    quick.ok("users", "create", "ann", "--credit", "5")
    quick.ok("provider-keys", "add", "openai", stdin=SECRET)
    found = statuses(quick)
    assert found.pop("sqlite") in {"ok", "warn"}
    assert set(found.values()) == {"ok"}
    assert "openai can be used" in quick.ok("doctor")


def test_doctor_warns_of_paused_and_keyless_providers(quick: Quick) -> None:
    quick.ok("provider-keys", "add", "openai", stdin=SECRET)
    quick.ok("providers", "pause", "openai", "--reason", "invoice unpaid")
    quick.ok("providers", "set", "xai", "--base-url", "https://api.x.ai/v1")
    out = quick.ok("doctor")
    assert "openai is paused since" in out
    assert "xai has no active keys (it has none)" in out


def test_doctor_names_a_key_that_the_proxy_has_taken_out_though_another_works(quick: Quick) -> None:
    quick.ok("provider-keys", "add", "openai", "--name", "first", stdin=SECRET)
    quick.ok("provider-keys", "add", "openai", "--name", "second", stdin=SECRET + "2")
    database = AdminDatabase(quick.database)
    with database.write() as tx:
        set_key_state(tx, 1, "dead", reason="401: revoked", actor="proxy", now_ms=1)
    database.close()
    out = " ".join(quick.ok("doctor").split())
    assert "openai: first is dead since 1970-01-01 00:00:00 UTC: 401: revoked" in out
    assert "llmproxy provider-keys enable openai first" in out
    assert "openai can be used" in out


def test_doctor_tells_how_to_use_a_server_without_a_key_again(quick: Quick) -> None:
    add = ("providers", "add", "ollama", "--base-url", "http://127.0.0.1:9/v1")
    quick.ok(*add, "--dialect", "openai", "--no-key")
    quick.ok("provider-keys", "disable", "ollama", "none")
    out = quick.ok("doctor")
    assert "ollama needs no key, but is disabled" in out
    assert "llmproxy provider-keys enable ollama none" in out
    quick.ok("provider-keys", "enable", "ollama", "none")
    assert "ollama can be used" in quick.ok("doctor")


def test_doctor_fails_when_keys_cannot_be_opened(quick: Quick) -> None:
    quick.ok("provider-keys", "add", "openai", stdin=SECRET)
    (quick.home / "config" / "master.key").write_text("00" * 32)
    ran = quick.run("doctor", "--json")
    assert ran.code == 1
    report = json.loads(ran.out)
    assert report["ok"] is False
    failed = [check["name"] for check in report["checks"] if check["status"] == "fail"]
    assert failed == ["master key"]


def test_doctor_fails_on_loose_modes_and_says_how_to_mend_them(quick: Quick) -> None:
    quick.ok("users", "create", "ann")
    quick.database.chmod(0o644)
    ran = quick.run("doctor")
    assert ran.code == 1
    assert f"chmod 600 {quick.database}" in ran.out


def test_doctor_fails_on_a_catalog_that_cannot_be_used(
    quick: Quick, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "catalog.json"
    file.write_text("{}")
    monkeypatch.setenv("LLMPROXY_CATALOG_FILE", str(file))
    ran = quick.run("doctor")
    assert ran.code == 1
    assert str(file) in ran.out


def test_the_database_is_described(quick: Quick) -> None:
    quick.ok("users", "create", "ann", "--key", "laptop")
    info = quick.json("db", "info")
    assert info["path"] == str(quick.database)
    schema = (info["schema_version"], info["journal_mode"], info["served_by"])
    assert schema == (SCHEMA_VERSION, "wal", None)
    assert (info["rows"]["users"], info["rows"]["api_keys"]) == (1, 1)
    assert "rows in users" in quick.ok("db", "info")
