"""Images and sound with OpenAI's own SDK, through the running proxy: bytes, money, refusals."""

import asyncio
import json
import threading
from collections.abc import Iterator

import openai
import pytest

from tests.fixtures import CATALOG, EVERY, Case
from tests.proxy.conftest import running_site
from tests.proxy.helpers import CREDIT_NANOUSD, Got, Site, Visitor
from tests.support.answers import plain, stream
from tests.support.forms import BOUNDARY, form, wav
from tests.support.stub_provider import Out, SeenRequest

PNG = ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(300), "image/png")
SOUND = ("rede.wav", wav(12_000), "audio/wav")
"""Of one and a half seconds."""
MP3 = bytes(range(256)) * 64
SPEECH = "/v1/openai/audio/speech"
TRANSCRIPTIONS = "/v1/openai/audio/transcriptions"
IMAGES = "/v1/openai/images/generations"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("media")
    catalog = json.loads(CATALOG.read_bytes())
    catalog["models"]["openai/told-image"] = {
        **catalog["models"]["openai/gpt-image-1.5"],
        "aliases": [],
        "prices": {"image_1k": "40"},
        "cost_from": "provider",
    }
    catalog["models"]["openai/by-the-image"] = catalog["models"]["xai/grok-imagine-image"]
    (home / "catalog.json").write_text(json.dumps(catalog))
    environ = {"LLMPROXY_CATALOG_FILE": str(home / "catalog.json")}
    with running_site(home, environ) as site:
        yield site


@pytest.fixture
def visitor(site: Site) -> Visitor:
    return site.visitor()


@pytest.fixture
def sdk(site: Site, visitor: Visitor) -> Iterator[openai.OpenAI]:
    url = f"http://127.0.0.1:{site.proxy.port}/v1/openai"
    with openai.OpenAI(base_url=url, api_key=visitor.key, max_retries=0) as client:
        yield client


def give(site: Site, name: str) -> Case:
    case = EVERY[name]
    if case.is_stream:
        site.stub.handle = stream(case.events)
    else:
        site.stub.handle = plain(case.answer)
    return case


def paid(site: Site, visitor: Visitor, nanousd: int) -> None:
    site.assert_paid(visitor, state="settled", basis="usage", nanousd=nanousd)


# --- OpenAI's SDK ---


def test_images_are_made(site: Site, visitor: Visitor, sdk: openai.OpenAI) -> None:
    case = give(site, "openai-images-plain")
    got = sdk.images.generate(model=case.model, prompt="夜", n=2, quality="medium")
    assert got.data is not None
    assert got.to_dict() == json.loads(case.answer)
    paid(site, visitor, case.nanousd)


def test_an_image_is_streamed(site: Site, visitor: Visitor, sdk: openai.OpenAI) -> None:
    case = give(site, "openai-images-stream")
    got = sdk.images.generate(model=case.model, prompt="夜", stream=True, partial_images=1)
    kinds = [event.type for event in got]
    assert kinds == ["image_generation.partial_image", "image_generation.completed"]
    paid(site, visitor, case.nanousd)


def test_images_are_edited(site: Site, visitor: Visitor, sdk: openai.OpenAI) -> None:
    case = give(site, "openai-images-edits-plain")
    got = sdk.images.edit(model=case.model, image=[PNG, PNG], prompt="屋根")
    assert got.to_dict() == json.loads(case.answer)
    seen = site.last_request()
    assert seen.body.count(PNG[1]) == 2
    boundary = seen.body[2 : seen.body.index(b"\r\n")]
    assert seen.header("content-type") == b"multipart/form-data; boundary=" + boundary
    paid(site, visitor, case.nanousd)


def test_an_edit_is_streamed(site: Site, visitor: Visitor, sdk: openai.OpenAI) -> None:
    case = give(site, "openai-images-edits-stream")
    got = sdk.images.edit(model=case.model, image=PNG, prompt="a", stream=True)
    assert [event.type for event in got][-1] == "image_edit.completed"
    paid(site, visitor, case.nanousd)


def test_sound_is_transcribed(site: Site, visitor: Visitor, sdk: openai.OpenAI) -> None:
    case = give(site, "openai-transcriptions-plain")
    got = sdk.audio.transcriptions.create(model=case.model, file=SOUND)
    assert got.text == "Die Möwe sitzt auf dem 屋根."
    paid(site, visitor, case.nanousd)


def test_a_transcript_is_streamed(site: Site, visitor: Visitor, sdk: openai.OpenAI) -> None:
    case = give(site, "openai-transcriptions-stream")
    got = sdk.audio.transcriptions.create(model=case.model, file=SOUND, stream=True)
    assert [event.type for event in got][-1] == "transcript.text.done"
    paid(site, visitor, case.nanousd)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_sound_is_translated(site: Site, visitor: Visitor, sdk: openai.OpenAI) -> None:
    case = give(site, "openai-translations-plain")
    got = sdk.audio.translations.create(
        model=case.model, file=SOUND, response_format="verbose_json"
    )
    assert got.text == "The gull sits on the roof."
    paid(site, visitor, case.nanousd)


def test_speech_passes_as_it_is_and_costs_its_characters(
    site: Site, visitor: Visitor, sdk: openai.OpenAI
) -> None:
    site.stub.handle = plain(MP3, 200, [("content-type", "audio/mpeg")])
    got = sdk.audio.speech.create(model="tts-1", voice="coral", input="größer 🚀")
    assert got.content == MP3
    paid(site, visitor, 8 * 15_000)


def test_speech_in_a_stream_of_events_costs_its_tokens(
    site: Site, visitor: Visitor, sdk: openai.OpenAI
) -> None:
    case = give(site, "openai-speech-stream")
    got = sdk.audio.speech.create(model=case.model, voice="coral", input="a", stream_format="sse")
    assert got.content == case.answer
    paid(site, visitor, case.nanousd)


def test_the_sdk_shows_why_something_is_refused(
    site: Site, visitor: Visitor, sdk: openai.OpenAI
) -> None:
    seen = len(site.stub.requests)
    with pytest.raises(openai.BadRequestError, match='Set `stream_format` to "sse"'):
        sdk.audio.speech.create(model="gpt-4o-mini-tts", voice="coral", input="a")
    with pytest.raises(openai.BadRequestError, match="use json or verbose_json"):
        sdk.audio.transcriptions.create(model="whisper-1", file=SOUND, response_format="srt")
    with pytest.raises(openai.BadRequestError, match="another model"):
        sdk.images.generate(
            model="gpt-image-1.5", prompt="a", extra_body={"svg": {"model": "gpt-4o"}}
        )
    with pytest.raises(openai.BadRequestError, match="is billed by audio seconds"):
        sdk.chat.completions.create(model="whisper-1", messages=[])
    assert len(site.stub.requests) == seen
    assert site.books.wallet(visitor.name) == (CREDIT_NANOUSD, 0)


def test_a_form_is_the_same_request_under_another_boundary(
    site: Site, visitor: Visitor, sdk: openai.OpenAI
) -> None:
    case = give(site, "openai-transcriptions-plain")
    seen = len(site.stub.requests)
    key = {"Idempotency-Key": "order-17"}
    sdk.audio.transcriptions.create(model=case.model, file=SOUND, prompt="a", extra_headers=key)
    with pytest.raises(openai.ConflictError, match="Answers are not stored"):
        sdk.audio.transcriptions.create(model=case.model, file=SOUND, prompt="a", extra_headers=key)
    with pytest.raises(openai.UnprocessableEntityError, match="belongs to request"):
        sdk.audio.transcriptions.create(model=case.model, file=SOUND, prompt="b", extra_headers=key)
    assert len(site.stub.requests) == seen + 1
    assert site.books.settled_wallet(visitor.name) == CREDIT_NANOUSD - case.nanousd


def test_a_form_with_a_part_more_is_another_request(site: Site, visitor: Visitor) -> None:
    give(site, "openai-transcriptions-plain")
    model = EVERY["openai-transcriptions-plain"].model
    key = {"idempotency-key": "order-17"}
    hidden = 'a\r\n--\r\nContent-Disposition: form-data; name="language"\r\n\r\nde'
    one = form({"model": model, "prompt": hidden}, {"file": SOUND[1]})
    two = form({"model": model, "prompt": "a", "language": "de"}, {"file": SOUND[1]})
    assert site.ask(visitor, TRANSCRIPTIONS, one, key).status == 200
    assert site.ask(visitor, TRANSCRIPTIONS, two, key).status == 422
    assert site.ask(visitor, TRANSCRIPTIONS, one, key).status == 409


# --- speech as it comes ---


def test_speech_is_heard_while_it_is_made(site: Site) -> None:
    go_on = threading.Event()
    sent: list[bytes] = []

    async def handle(request: SeenRequest, out: Out) -> None:
        await out.head(200, [("content-type", "audio/mpeg")])
        while not go_on.is_set():  # only ends once some of it has reached the client
            sent.append(b"%d " % len(sent))
            await out.chunk(sent[-1])
            await asyncio.sleep(0.005)
        await out.end()

    site.stub.handle = handle
    visitor, taken = site.visitor(), b""
    body = b'{"model":"tts-1","voice":"coral","input":"four"}'
    with site.send(visitor, SPEECH, body) as client:
        client.recv_head()
        for _, piece in client.recv_chunks():
            taken += piece
            go_on.set()
    assert taken == b"".join(sent)
    paid(site, visitor, 4 * 15_000)


def test_speech_that_the_provider_breaks_off_is_no_clean_end(site: Site) -> None:
    async def handle(request: SeenRequest, out: Out) -> None:
        await out.head(200, [("content-type", "audio/mpeg")], length=len(MP3) * 2)
        await out.chunk(MP3)
        out.abort()

    site.stub.handle = handle
    visitor = site.visitor()
    got = site.ask(visitor, SPEECH, b'{"model":"tts-1","voice":"coral","input":"four"}')
    assert not got.clean_end
    site.assert_paid(visitor, state="settled", basis="estimate", nanousd=4 * 15_000)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, b'{"error":{"message":"no"}}'),
        (200, b""),
        (200, b'{"error":{"message":"overloaded","code":502}}'),
    ],
)
def test_speech_that_there_is_none_of_costs_nothing(site: Site, status: int, body: bytes) -> None:
    site.stub.handle = plain(body, status)
    visitor = site.visitor()
    got = site.ask(visitor, SPEECH, b'{"model":"tts-1","voice":"coral","input":"four"}')
    assert (got.status, got.body) == (status, body)
    site.assert_released(visitor)


# --- what the provider reports in another way than the model is billed by ---


def ask_form(site: Site, visitor: Visitor, model: str, file: bytes = SOUND[1]) -> Got:
    return site.ask(visitor, TRANSCRIPTIONS, form({"model": model}, {"file": file}))


@pytest.mark.parametrize(
    "usage",
    [None, {"type": "tokens", "input_tokens": 9, "output_tokens": 3, "total_tokens": 12}],
    ids=["none", "tokens"],
)
def test_time_that_is_not_reported_is_that_of_the_file(site: Site, usage: object) -> None:
    site.stub.handle = plain(json.dumps({"text": "größe", "usage": usage}).encode())
    visitor = site.visitor()
    ask_form(site, visitor, "whisper-1")
    row = site.assert_paid(visitor, state="settled", basis="estimate", nanousd=2 * 100_000)
    told = "what this model has no price for" if usage else "the provider reported no usage"
    assert told in row["reason"]


def test_of_a_file_with_an_unknown_length_its_size_counts(site: Site) -> None:
    site.stub.handle = plain(b'{"text":"a"}')
    visitor = site.visitor()
    ask_form(site, visitor, "whisper-1", bytes(16_001))  # 8,000 bytes for a second
    site.assert_paid(visitor, state="settled", basis="estimate", nanousd=3 * 100_000)


def test_tokens_that_are_not_reported_are_estimated(site: Site) -> None:
    site.stub.handle = plain(b'{"text":"abcdef","usage":{"type":"duration","seconds":1.5}}')
    visitor = site.visitor()
    ask_form(site, visitor, "gpt-4o-transcribe")
    text_bytes = len(form({"model": "gpt-4o-transcribe"}, {"file": b""}))
    # Two seconds of ten tokens; the form around the sound is little, and counted as sound too.
    nanousd = (-(-text_bytes // 3) + 20) * 6_000 + 2 * 10_000
    site.assert_paid(visitor, state="settled", basis="estimate", nanousd=nanousd)


@pytest.mark.parametrize(("cost", "nanousd"), [(0, 0), (0.03, 30_000_000)])
@pytest.mark.parametrize("total", [2, 0, -1, None], ids=["true", "untrue", "absurd", "untold"])
def test_what_the_provider_says_that_it_bills_is_the_bill_also_if_it_is_nothing(
    site: Site, cost: float, nanousd: int, total: int | None
) -> None:
    tokens = {"input_tokens": 1, "output_tokens": 1, "total_tokens": total}
    usage = {"cost": cost} if total is None else {**tokens, "cost": cost}
    site.stub.handle = plain(json.dumps({"data": [{"url": "x"}], "usage": usage}).encode())
    visitor = site.visitor()
    body = b'{"model":"told-image","prompt":"a","quality":"high","size":"1024x1024"}'
    site.ask(visitor, IMAGES, body)
    row = site.assert_paid(visitor, state="settled", basis="usage", nanousd=nanousd)
    (leg,) = json.loads(row["usage"])["legs"]
    if total == 2:
        assert (leg["input"], leg["output"]) == (1, 1)
    elif total is None:
        assert leg == {"images": 1}  # it tells no tokens at all, and one has come
    else:  # which cannot be true: so the row has what is likely, and limits count that
        likely = {"input": -(-len(body) // 3), "output": 7_024}  # as below
        assert leg == {**likely, "images": 1, "output_image": 7_024}


@pytest.mark.parametrize(
    ("made", "tokens"),
    [
        ([{"url": "https://x/a.png"}], 7_024),
        ([{"url": "https://x/a.png"}] * 2, 14_048),
        ([{"url": "https://x/a.png"}] * 3, 14_048),
        ([{"b64_json": "a" * 9_000}], 7_024),
    ],
)
def test_images_without_usage_have_the_tokens_that_were_asked_for(
    site: Site, made: list[dict[str, str]], tokens: int
) -> None:
    """7,024 for `high` and 1024 by 1024: 96 × 96 × 3,048,576 / 4M, by OpenAI's calculator."""
    site.stub.handle = plain(json.dumps({"created": 1, "data": made}).encode())
    visitor = site.visitor()
    body = b'{"model":"gpt-image-1.5","prompt":"a","n":2,"quality":"high","size":"1024x1024"}'
    site.ask(visitor, IMAGES, body)
    nanousd = -(-len(body) // 3) * 5_000 + tokens * 32_000
    row = site.assert_paid(visitor, state="settled", basis="estimate", nanousd=nanousd)
    assert "what this model has no price for" in row["reason"]


@pytest.mark.parametrize(
    ("usage", "basis"),
    [
        (None, "usage"),
        ({"cost_in_usd_ticks": 2 * 10**8}, "usage"),
        ({"input_tokens": 9, "output_tokens": 9, "total_tokens": 18}, "estimate"),
        ({"input_tokens": -1, "output_tokens": 9}, "estimate"),
        ({"input_tokens": -1, "output_tokens": 9, "cost": 0.5}, "estimate"),
    ],
    ids=["none", "cost", "tokens", "absurd", "absurd with a cost"],
)
def test_of_a_model_that_is_billed_by_the_image_those_that_came_are_paid(
    site: Site, usage: object, basis: str
) -> None:
    """Three are asked for, and one comes; two items say that theirs was refused. Two cents each."""
    data = [{"url": "https://x/a.png"}, {"b64_json": None}, {"revised_prompt": "a"}]
    site.stub.handle = plain(json.dumps({"data": data, "usage": usage}).encode())
    visitor = site.visitor()
    site.ask(visitor, IMAGES, b'{"model":"by-the-image","prompt":"a","n":3}')
    site.assert_paid(visitor, state="settled", basis=basis, nanousd=20_000_000)


def test_images_that_were_all_refused_cost_nothing(site: Site) -> None:
    site.stub.handle = plain(b'{"data":[{"b64_json":null},{"revised_prompt":"a"}]}')
    visitor = site.visitor()
    site.ask(visitor, IMAGES, b'{"model":"gpt-image-1.5","prompt":"a","n":2}')
    site.assert_released(visitor)


def test_the_record_of_a_transcript_has_what_its_charge_rests_on(site: Site) -> None:
    site.stub.handle = plain(b'{"text":"a","duration":1.50,"usage":{"type": "duration"}}')
    visitor = site.visitor()
    ask_form(site, visitor, "whisper-1")
    row = site.assert_paid(visitor, state="settled", basis="usage", nanousd=2 * 100_000)
    assert row["raw_usage"] == '{"usage":{"type": "duration"},"duration":1.50}'


def test_images_of_an_answer_that_breaks_off_are_estimated_as_images(site: Site) -> None:
    case = EVERY["openai-images-stream"]
    site.stub.handle = stream(case.events[:1])
    visitor = site.visitor()
    body = json.dumps({**json.loads(case.request), "quality": "low"}, ensure_ascii=False).encode()
    got = site.ask(visitor, IMAGES, body)
    assert got.last_event()[0] == b"error"
    size = json.loads(case.events[0].split(b"data: ")[1])["b64_json"]
    seen = -(-(300 + (len(size) + 2) // 256) // 3)  # a partial image is 100 tokens, by the guide
    nanousd = -(-len(body) // 3) * 5_000 + seen * 32_000
    site.assert_paid(visitor, state="settled", basis="estimate", nanousd=nanousd)


# --- holds and refusals ---


def test_a_402_says_what_images_would_need(site: Site) -> None:
    name, key = site.books.user("0.05")
    seen = len(site.stub.requests)
    body = b'{"model":"gpt-image-1.5","prompt":"a","quality":"medium","size":"1024x1024"}'
    got = site.ask(Visitor(name, key), IMAGES, body)
    assert (got.status, got.error()["code"]) == (402, "insufficient_credit")
    tokens_in = len(body) // 3 + 600
    nanousd = tokens_in * 8_000 + 1_756 * 32_000  # OpenAI's calculator: 48 × 48 × 3,048,576 / 4M
    assert got.error()["max_tokens_affordable"] == 0  # there is none that it could set
    assert " — top up or ask for a smaller size or a lower quality. " in got.error()["message"]
    assert got.error()["needed_usd"] == f"{nanousd / 10**9:.9f}".rstrip("0")
    assert len(site.stub.requests) == seen


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "multipart/form-data; boundary=another; charset=utf-16", "text/plain"],
)
def test_a_provider_is_told_the_boundary_of_the_body_whatever_the_client_says(
    site: Site, content_type: str
) -> None:
    case, visitor = give(site, "openai-whisper-plain"), site.visitor()
    body = form({"model": "whisper-1"}, {"file": SOUND[1]})
    site.ask(visitor, TRANSCRIPTIONS, body, {"content-type": content_type})
    seen = site.last_request()
    assert seen.body == body
    told = [value for name, value in seen.headers if name.lower() == b"content-type"]
    assert told == [f"multipart/form-data; boundary={BOUNDARY}".encode()]
    paid(site, visitor, case.nanousd)


def test_the_models_are_listed(sdk: openai.OpenAI) -> None:
    listed = {model.id for model in sdk.models.list()}
    assert {"gpt-image-1.5", "whisper-1", "tts-1", "gpt-4o"} <= listed
