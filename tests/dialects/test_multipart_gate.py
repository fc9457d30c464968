"""The gate for forms: what two parsers could read differently is refused."""

import pytest

from llmproxy.dialects.multipart_gate import PARTS_MAX, File, Form, parse_form, with_numbers
from llmproxy.errors import ApiError
from tests.support.forms import BOUNDARY, form, part

BILLED = frozenset({"model", "stream", "n"})
FILES = ("file", "image")
END = f"--{BOUNDARY}--\r\n".encode()
MODEL = part('name="model"', b"m")
FILE = part('name="file"; filename="a.wav"', b"RIFF")


def odd(header: str, content: bytes = b"m") -> bytes:
    return part('name="model"', content, BOUNDARY, header) + END


def parse(body: bytes) -> Form:
    return parse_form(body, BILLED, FILES)


def refusal(body: bytes) -> str:
    with pytest.raises(ApiError) as caught:
        parse(body)
    assert (caught.value.status, caught.value.code) == (400, "invalid_request")
    caught.value.body("req_1")  # the wording itself can be sent
    return caught.value.message


def test_an_ordinary_form_is_read() -> None:
    content = bytes(range(256)) * 1000
    got = parse(form({"model": "größe", "prompt": "a\r\nb"}, {"file": content}))
    assert got.fields == {"model": "größe", "prompt": None}
    assert got.files == [File("file", 256_000, content[: 128 * 1024], ("file.bin",))]
    assert got.text_bytes == len(form({"model": "größe", "prompt": "a\r\nb"}, {"file": b""}))
    assert got.content_type == f"multipart/form-data; boundary={BOUNDARY}".encode()


@pytest.mark.parametrize(
    "body",
    [
        MODEL + FILE + END.rstrip(b"\r\n"),
        MODEL + part('name="file"; filename="größe.wav"', b"x", BOUNDARY) + END,
        MODEL + part('name="file"; filename="a"; filename*=utf-8\'\'gr%C3%B6', b"x") + END,
        part('name="model"', b"m", BOUNDARY, "Content-Type: text/plain; charset=utf-8") + END,
        part('name="model"', b"m", BOUNDARY, "Content-Length: 1") + END,
        part('name="model"', b"m", BOUNDARY, "Content-Transfer-Encoding: 8bit") + END,
        MODEL + part('name="image[]"; filename="a.png"', b"x") * 2 + END,
        MODEL + part('name="timestamp_granularities[]"', b"word") * 2 + END,
    ],
)
def test_what_clients_send_is_taken(body: bytes) -> None:
    assert parse(body).fields["model"] == "m"


def test_a_file_is_known_by_all_its_names_and_its_type() -> None:
    disposition = 'name="file"; filename="a.wav"; filename*=utf-8\'\'b.mp3'
    written = part(disposition, b"x", BOUNDARY, "Content-Type: Audio/WAV; a=b")
    (file,) = parse(MODEL + written + END).files
    assert file == File("file", 1, b"x", ("a.wav", "utf-8''b.mp3"), "audio/wav")


@pytest.mark.parametrize("boundary", ["a" * 70, "----WebKitFormBoundaryX1", "a=b:c?(d)"])
def test_the_provider_is_told_the_boundary_that_the_body_has(boundary: str) -> None:
    told = parse(form({"model": "m"}, {}, boundary)).content_type.decode()
    assert told.replace('"', "") == f"multipart/form-data; boundary={boundary}"
    assert ('"' in told) == ("=" in boundary)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "must be a form"),
        (b'{"model":"m"}', "must be a form"),
        (b"preamble\r\n" + MODEL + END, "must be a form"),
        (b"--" + b"a" * 71 + b"\r\n", "must be a form"),
        (MODEL, "cannot be read"),
        (MODEL + FILE, "cannot be read"),
        (MODEL + END + b"x", "boundary"),
        (MODEL + END + MODEL + END, "boundary"),
        (MODEL + MODEL + END, "given twice"),
        # A parser that takes a mere LF for a line end sees another model in the prompt.
        (
            MODEL
            + part(
                'name="prompt"',
                f'x\n--{BOUNDARY}\nContent-Disposition: form-data; name="model"\n\ndear'.encode(),
            )
            + END,
            "boundary",
        ),
        (MODEL + part('name="x"', b"--" + BOUNDARY.encode()) + END, "boundary"),
        (MODEL.replace(b"\r\n", b"\n") + END, "must be a form"),
        (part('name="Model"', b"m") + END, "must be written 'model'"),
        (part('name="model[]"', b"m") + END, "must be written 'model'"),
        (MODEL + part('name="model.x"', b"m") + END, "must be written 'model'"),
        (part('name="model"; filename="m"', b"m") + END, "cannot be a file"),
        (MODEL + part('name="other"; filename="m"', b"m") + END, "cannot be a file"),
        (MODEL + part('name="file"', b"m") + END, "must be a file"),
        (part("name=model", b"m") + END, "double quotes"),
        (part('name="x"; name="model"', b"m") + END, "double quotes"),
        (part('filename="a"; name="model"', b"m") + END, "double quotes"),
        (part('name="file"; filename="a\\"; name=\\"model"', b"m") + END, "double quotes"),
        (part('name="mo%22del"', b"m") + END, "unusual"),
        (part('name=""', b"m") + END, "unusual"),
        (part('name="модель"', b"m") + END, "unusual"),
        (odd("Content-Transfer-Encoding: base64", b"bQ=="), "encoded"),
        (odd("Content-Type: text/plain; charset=utf-16"), "UTF-8"),
        (odd("Content-Disposition: form-data; name=\"n\""), "twice"),
        (odd("X-Odd: 1"), "X-Odd"),
        (odd("Content-Length: 2"), "cannot be read"),
        (part('name="model"', b"\xff") + END, "cannot be read"),
        (MODEL + part('name="x"', b"") * PARTS_MAX + END, "cannot be read"),
    ],
)  # fmt: skip
def test_a_form_that_could_be_read_in_two_ways_is_refused(body: bytes, why: str) -> None:
    assert why in refusal(body)


def test_a_form_cut_short_anywhere_is_refused() -> None:
    body = (MODEL + FILE + END).removesuffix(b"\r\n")
    for size in range(len(body)):
        refusal(body[:size])


def test_numbers_and_flags_are_read_as_json_has_them() -> None:
    fields = {"n": "2", "stream": "true", "model": "7", "size": "1"}
    assert with_numbers(fields, ("n",)) == {"n": 2, "stream": True, "model": "7", "size": "1"}
    odd = {"n": "2.0", "stream": "True"}
    assert with_numbers(odd, ("n",)) == odd
