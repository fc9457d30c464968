"""The table of dialects: what one row brings, as docs/adding-a-provider.md tells it."""

import json

import pytest
from typer.testing import CliRunner

from llmproxy.catalog_parser import load_catalog
from llmproxy.cli.app import app
from llmproxy.cli.completion import dialect_names
from llmproxy.dialects import families
from llmproxy.dialects.families import FAMILIES, Face, Family, faces_of
from llmproxy.dialects.unmetered import FreeEndpoint
from llmproxy.headers import to_provider
from llmproxy.key_pool import Provider
from llmproxy.model_list import models_body
from llmproxy.probe import _question
from llmproxy.routes import Route, Routes
from tests.fixtures import CATALOG

ECHO = FreeEndpoint("text", "/api/text", {})
ROW = Family(
    lambda provider, preset: (Face("echo", (ECHO,), inner=("", "v1/")),),
    credential=b"x-echo-key",
    probe_path="/api/models",
)


@pytest.fixture
def _echo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "FAMILIES", {**FAMILIES, "echo": ROW})
    for module in ("headers", "probe"):
        monkeypatch.setattr(f"llmproxy.{module}.FAMILIES", families.FAMILIES)


@pytest.mark.usefixtures("_echo")
def test_one_row_brings_the_paths_the_key_and_the_probe() -> None:
    routes = Routes([("mine", "echo")])
    route = routes.find("POST", b"/v1/mine/text")
    assert (route.endpoint, route.dialect) == (ECHO, "echo")
    assert routes.find("POST", b"/v1/mine/v1/text") == route
    assert to_provider([], "echo", "secret")[-1] == (b"x-echo-key", b"secret")
    row = Provider(1, "mine", "echo", "https://x", False, None, None, None, None, None, 1)
    assert _question(row, "secret")[0] == "/api/models"


@pytest.mark.usefixtures("_echo")
def test_its_list_of_models_is_openais_unless_it_has_one_of_its_own() -> None:
    body = models_body(load_catalog(CATALOG), Route("gemini", "echo"))
    assert {one["object"] for one in json.loads(body)["data"]} == {"model"}


def test_every_face_of_every_provider_has_endpoints_and_a_row_for_its_key() -> None:
    assert set(FAMILIES) == {"openai", "anthropic", "gemini"}
    for name in FAMILIES:
        for face in faces_of("own", name):
            assert face.dialect in FAMILIES
            assert bool(face.endpoints) != bool(face.by_model)


@pytest.mark.usefixtures("_echo")
def test_the_command_line_names_it_by_itself() -> None:
    for command in ("add", "set"):
        shown = CliRunner().invoke(app, ["providers", command, "--help"])
        assert "What it speaks: anthropic, echo, gemini, openai." in " ".join(shown.output.split())
    assert dialect_names("e") == ["echo"]
