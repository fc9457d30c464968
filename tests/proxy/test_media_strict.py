"""Images and sound on a strict server: what has a bound is served, what has none is refused."""

from collections.abc import Iterator

import pytest

from tests.fixtures import CATALOG, EVERY
from tests.proxy.conftest import running_site
from tests.proxy.helpers import Site
from tests.support.answers import plain
from tests.support.forms import form, wav

TRANSCRIPTIONS = "/v1/openai/audio/transcriptions"
MP3 = bytes(range(256)) * 64


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    environ = {"LLMPROXY_CATALOG_FILE": str(CATALOG), "LLMPROXY_STRICT": "true"}
    with running_site(tmp_path_factory.mktemp("strict-media"), environ) as site:
        yield site


@pytest.mark.parametrize("width", [1, 3])
def test_a_strict_server_takes_what_has_a_bound(strict: Site, width: int) -> None:
    case, visitor = EVERY["openai-whisper-plain"], strict.visitor()
    strict.stub.handle = plain(case.answer)
    sound = wav(12_000, width=width)
    strict.ask(visitor, TRANSCRIPTIONS, form({"model": "whisper-1"}, {"file": sound}))
    strict.assert_paid(visitor, state="settled", basis="usage", nanousd=case.nanousd)


@pytest.mark.parametrize(
    ("path", "body", "why"),
    [
        (TRANSCRIPTIONS, form({"model": "whisper-1"}, {"file": MP3}), "WAV"),
        (
            TRANSCRIPTIONS,
            form({"model": "whisper-1"}, {"file": wav(12_000, width=2)}),
            "8, 24 or 32 bits",
        ),
        (
            "/v1/openai/images/generations",
            b'{"model":"gpt-image-1.5","prompt":"a"}',
            "quality",
        ),
        (
            "/v1/openai/images/edits",
            form({"model": "gpt-image-1.5", "quality": "low"}, {"image": MP3}),
            "how much input",
        ),
        (
            "/v1/openai/audio/speech",
            b'{"model":"gpt-4o-mini-tts","input":"a","stream_format":"sse"}',
            "billed by characters",
        ),
    ],
)
def test_a_strict_server_refuses_what_has_none(
    strict: Site, path: str, body: bytes, why: str
) -> None:
    got = strict.ask(strict.visitor(), path, body)
    assert (got.status, got.error()["code"]) == (400, "option_not_metered")
    assert why in got.error()["message"]
