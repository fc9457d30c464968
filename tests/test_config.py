"""Settings: where they come from, what they may be, and the master key's whereabouts."""

import os
import re
from pathlib import Path

import pytest

from llmproxy import config, settings
from llmproxy.errors import ConfigError, VaultError
from llmproxy.vault import new_master_key


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "config").mkdir(mode=0o700)
    return {"LLMPROXY_HOME": str(tmp_path)}


def write_file(environ: dict[str, str], text: str) -> Path:
    path = config.find_paths(environ).config_file
    path.write_text(text)
    return path


def test_without_anything_the_defaults_are_in_force(environ: dict[str, str]) -> None:
    loaded = config.load_config(environ=environ)
    assert loaded.settings == settings.Settings()
    assert set(loaded.origins.values()) == {"default"}


def test_a_flag_beats_the_environment_beats_the_file(environ: dict[str, str]) -> None:
    path = write_file(environ, 'port = 1001\nhost = "10.0.0.1"\nlog_level = "debug"\n')
    environ |= {"LLMPROXY_PORT": "1002", "LLMPROXY_HOST": "10.0.0.2"}
    loaded = config.load_config({"port": 1003, "host": None}, environ)
    assert loaded.settings.port == 1003
    assert loaded.settings.host == "10.0.0.2"
    assert loaded.settings.log_level == "debug"
    assert [loaded.origins[name] for name in ("port", "host", "log_level", "drains_max")] == [
        "flag",
        "LLMPROXY_HOST",
        str(path),
        "default",
    ]


def test_every_setting_is_described_and_its_default_is_within_its_bounds() -> None:
    described = [setting.name for setting in settings.SETTINGS]
    assert described == list(settings.Settings.__struct_fields__)
    defaults = settings.Settings()
    for setting in settings.SETTINGS:
        if setting.highest:
            assert setting.lowest <= getattr(defaults, setting.name) <= setting.highest


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("PORT", text) for text in ("http", "-1", "65536", "80.0", "")),
        ("LOG_LEVEL", "loud"),
        ("LOG_REQUESTS", "perhaps"),
        ("PUBLIC_URL", "llm.example.org"),
        *(("TRUSTED_PROXIES", text) for text in ("localhost", "10.0.0.1/8", "127.0.0.1;::1")),
        ("PUBLIC_URL", "https://user:secret@llm.example.org"),
        ("METRICS_PORT", "65536"),
        ("BODY_BYTES_MAX", "12"),
    ],
)
def test_a_wrong_value_names_the_setting_and_its_origin(
    environ: dict[str, str], name: str, value: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        config.load_config(environ=environ | {f"LLMPROXY_{name}": value})
    assert name.lower() in str(raised.value)
    assert f"LLMPROXY_{name}" in str(raised.value)


@pytest.mark.parametrize("text", ["port = true", "port = 80.5", "host = 5", "prot = 1", "= 3"])
def test_a_wrong_file_is_refused_by_name(environ: dict[str, str], text: str) -> None:
    path = write_file(environ, text)
    with pytest.raises(ConfigError, match=str(path)):
        config.load_config(environ=environ)


def test_without_a_home_the_platforms_directories_are_used() -> None:
    paths = config.find_paths({})
    assert paths.database.name == "llmproxy.db"
    assert "llmproxy" in paths.config_file.parent.name


def test_the_master_key_is_made_once_and_for_its_owner_alone(environ: dict[str, str]) -> None:
    paths = config.find_paths(environ)
    assert config.load_vault(paths, environ) is None
    sealed = config.load_or_make_vault(paths, environ).seal(
        "secret", row_id=1, provider="p", base_url="u"
    )
    assert paths.master_key.stat().st_mode & 0o777 == 0o600
    again = config.load_or_make_vault(paths, environ)
    assert again.open(sealed, row_id=1, provider="p", base_url="u") == "secret"


def test_a_master_key_that_others_can_read_is_refused(environ: dict[str, str]) -> None:
    paths = config.find_paths(environ)
    config.load_or_make_vault(paths, environ)
    paths.master_key.chmod(0o640)
    with pytest.raises(VaultError, match="chmod 600"):
        config.load_vault(paths, environ)


def test_one_that_is_named_must_be_closed_to_others_too(
    environ: dict[str, str], tmp_path: Path
) -> None:
    named = tmp_path / "named.key"
    named.write_text(new_master_key())
    environ |= {config.MASTER_KEY_FILE_VARIABLE: str(named)}
    for mode in (0o604, 0o640, 0o620):
        named.chmod(mode)
        with pytest.raises(VaultError, match=rf"mode 0{mode:o}.*chmod 600 {named}"):
            config.load_vault(config.find_paths(environ), environ)
    for mode in (0o400, 0o600):
        named.chmod(mode)
        assert config.load_vault(config.find_paths(environ), environ) is not None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_master_key_of_another_user_is_refused(environ: dict[str, str]) -> None:
    paths = config.find_paths(environ)
    config.load_or_make_vault(paths, environ)
    os.chown(paths.master_key, 12345, -1)
    with pytest.raises(VaultError, match=r"belongs to another user \(uid 12345\).*chown 0 "):
        config.load_vault(paths, environ)


def test_what_the_service_manager_hands_over_has_modes_of_its_own(
    environ: dict[str, str], tmp_path: Path
) -> None:
    credential = tmp_path / config.CREDENTIAL_NAME
    credential.write_text(new_master_key())
    credential.chmod(0o440)
    environ |= {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert config.load_vault(config.find_paths(environ), environ) is not None


def test_a_key_is_in_no_text_about_where_it_is(environ: dict[str, str]) -> None:
    text = new_master_key()
    environ |= {config.MASTER_KEY_VARIABLE: text}
    found = config.find_master_key(config.find_paths(environ), environ)
    assert text not in repr(found)
    assert text not in str(found)


def test_the_master_key_is_looked_for_where_it_is_named(
    environ: dict[str, str], tmp_path: Path
) -> None:
    paths = config.find_paths(environ)
    text = new_master_key()
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / config.CREDENTIAL_NAME).write_text(text)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text(text)
    elsewhere.chmod(0o600)
    for named in (
        {config.MASTER_KEY_VARIABLE: text},
        {config.MASTER_KEY_FILE_VARIABLE: str(elsewhere)},
        {"CREDENTIALS_DIRECTORY": str(credentials)},
    ):
        assert config.load_vault(paths, environ | named) is not None
    missing = {config.MASTER_KEY_FILE_VARIABLE: str(tmp_path / "missing")}
    with pytest.raises(VaultError, match="cannot be read"):
        config.load_vault(paths, environ | missing)
    assert not paths.master_key.exists()


def test_the_operator_is_named_as_the_system_names_them() -> None:
    assert config.operator_name({"USER": "olga"}) == "cli:olga"
    assert config.operator_name({"LOGNAME": "otto"}) == "cli:otto"
    # As in containers and under cron: the account's name, if it has one, else its number.
    assert re.fullmatch(r"cli:[\w.-]+", config.operator_name({}))
    assert config.operator_name({}) != "cli:unknown"


def test_the_master_key_may_come_through_a_pipe(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    with os.fdopen(read_end), os.fdopen(write_end, "w") as pipe:
        pipe.write("5" * 64)
        pipe.close()
        environ = {
            "LLMPROXY_HOME": str(tmp_path),
            "LLMPROXY_MASTER_KEY_FILE": f"/dev/fd/{read_end}",
        }
        assert config.load_vault(config.find_paths(environ), environ) is not None


def test_a_pipe_that_has_said_the_master_key_is_not_read_again(tmp_path: Path) -> None:
    """Nobody writes to it: to open it would wait for ever."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    environ = {"LLMPROXY_HOME": str(tmp_path), "LLMPROXY_MASTER_KEY_FILE": str(pipe)}
    paths = config.find_paths(environ)
    assert config.find_spent_pipe(paths, environ) == pipe
    with pytest.raises(VaultError, match="says it only once"):
        config.load_vault_again(paths, environ)
    in_environ = environ | {"LLMPROXY_MASTER_KEY": "5" * 64}
    assert config.find_spent_pipe(paths, in_environ) is None
    pipe.unlink()
    pipe.write_text("5" * 64)
    pipe.chmod(0o600)
    assert config.load_vault_again(paths, environ) is not None
