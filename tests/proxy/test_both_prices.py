"""Models with prices of tokens and of seconds or characters: one of them is charged, never both.

So it is where the provider tells what was used, and where it must be estimated. Images are in
`test_image_estimates.py`.
"""

import json
from collections.abc import Iterator

import pytest

from tests.fixtures import CATALOG
from tests.proxy.conftest import running_site
from tests.proxy.helpers import Site
from tests.support.answers import data_event, plain, stream
from tests.support.forms import BOUNDARY, form, wav

SPEECH = "/v1/openai/audio/speech"
TRANSCRIPTIONS = "/v1/openai/audio/transcriptions"
TOKENS = {"input_tokens": 30, "output_tokens": 8, "total_tokens": 38}
SECONDS = {"type": "duration", "seconds": 7}
SOUND = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Text in 2 USD, sound in 6, out 10; 0.36 an hour, which is a ten-thousandth a second, or 15.

    `heard` is billed by time, `spoken` by a million characters, and both by tokens too.
    """
    home = tmp_path_factory.mktemp("both")
    catalog = json.loads(CATALOG.read_bytes())
    entry = {"mode": "audio", "in_price": "2", "out_price": "10"}
    heard = {"input_audio": "6", "audio_hour": "0.36"}
    catalog["models"]["openai/heard"] = {**entry, "prices": heard}
    catalog["models"]["openai/spoken"] = {**entry, "prices": {"characters": "15"}}
    (home / "catalog.json").write_text(json.dumps(catalog))
    with running_site(home, {"LLMPROXY_CATALOG_FILE": str(home / "catalog.json")}) as site:
        yield site


@pytest.mark.parametrize(
    ("usage", "basis", "nanousd"),
    [
        (TOKENS, "usage", 30 * 6_000 + 8 * 10_000),
        (SECONDS, "usage", 700_000),
        # Two measures of the same work, as Mistral reports them.
        ({**TOKENS, "prompt_audio_seconds": 7}, "usage", 700_000),
        # Of the request, whose sound has two seconds.
        (None, "estimate", 200_000),
        ({"input_tokens": -1, "output_tokens": 8}, "estimate", 200_000),
    ],
)
def test_sound_costs_its_seconds_or_its_tokens(
    site: Site, usage: object, basis: str, nanousd: int
) -> None:
    site.stub.handle = plain(json.dumps({"text": "Rede " * 99, "usage": usage}).encode())
    visitor = site.visitor()
    body = form({"model": "heard"}, {"file": wav(16_000)})
    assert site.ask(visitor, TRANSCRIPTIONS, body, SOUND).status == 200
    site.assert_paid(visitor, state="settled", basis=basis, nanousd=nanousd)


def test_both_are_held(site: Site) -> None:
    """Two seconds by time, and 32 tokens for each, with the text, at the dearest price of input."""
    site.stub.handle = plain(json.dumps({"text": "a", "usage": TOKENS}).encode())
    visitor = site.visitor()
    body = form({"model": "heard"}, {"file": wav(16_000)})
    site.ask(visitor, TRANSCRIPTIONS, body, SOUND)
    text = len(form({"model": "heard"}, {"file": b""}))
    output = 128_000  # of a model whose most nobody knows
    held = 200_000 + ((text + 48) // 3 + 600 + 64) * 6_000 + output * 10_000
    assert site.ended(visitor)["hold_nanousd"] == held


@pytest.mark.parametrize(
    ("end", "basis", "nanousd"),
    [
        ([{"type": "speech.audio.done", "usage": TOKENS}], "usage", 30 * 2_000 + 8 * 10_000),
        ([{"type": "speech.audio.done"}], "estimate", 60_000),
        ([], "estimate", 60_000),
    ],
)
def test_speech_costs_its_characters_or_its_tokens(
    site: Site, end: list[dict[str, object]], basis: str, nanousd: int
) -> None:
    spoken = {"type": "speech.audio.delta", "audio": "A" * 3_000}
    site.stub.handle = stream([data_event(event) for event in [spoken, *end]])
    visitor = site.visitor()
    site.ask(visitor, SPEECH, b'{"model":"spoken","input":"four","stream_format":"sse"}')
    site.assert_paid(visitor, state="settled", basis=basis, nanousd=nanousd)
