"""The gate for request bodies: what two parsers could read differently is refused."""

import json
import time
import tracemalloc

import pytest

from llmproxy.dialects import json_gate
from llmproxy.dialects.json_gate import (
    flag,
    parse_object,
    required_model,
    text,
    whole,
    with_member,
)
from llmproxy.errors import ApiError

BILLED = frozenset({"model", "stream", "max_tokens", "tasks", "kind"})


@pytest.fixture(autouse=True, params=["at once", "slowly"])
def _both_readers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything holds for large bodies too."""
    if request.param == "slowly":
        monkeypatch.setattr(json_gate, "is_light", lambda _body: False)


def refusal(body: bytes) -> str:
    with pytest.raises(ApiError) as caught:
        parse_object(body, BILLED)
    assert (caught.value.status, caught.value.code) == (400, "invalid_request")
    caught.value.body("req_1")  # the wording itself can be sent
    return caught.value.message


def test_an_ordinary_object_is_read() -> None:
    assert parse_object(b' {"model": "m", "x": [1, {"y": null}]}\r\n', BILLED) == {
        "model": "m",
        "x": [1, {"y": None}],
    }


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","model":"b"}',
        b'{"model":"a","m\\u006fdel":"b"}',
        b'{"m\\u006Fdel":"a","\\u006dodel":"b"}',
        b'{"x":{"y":1,"y":1}}',
        b'{"x":[{"a":[{"b":0,"c":1,"b":2}]}]}',
        b'{"":1,"":2}',
        b'{"a\\/b":1,"a/b":2}',
        b'{"\\ud83d\\ude00":1,"\xf0\x9f\x98\x80":2}',
    ],
)
def test_a_key_that_stands_twice_in_an_object_is_refused_at_any_depth(body: bytes) -> None:
    assert "twice" in refusal(body)


def test_a_duplicate_among_very_many_keys_is_found_in_no_time() -> None:
    body = b"{" + b"".join(b'"k%d":0,' % n for n in range(29_000)) + b'"k28999":1}'
    before = time.process_time()
    assert "'k28999' stands twice" in refusal(body)
    assert time.process_time() - before < 2  # it was 21 s


def test_the_same_key_in_different_objects_is_no_duplicate() -> None:
    body = b'{"model":"m","a":{"model":1},"b":[{"x":1},{"x":2}]}'
    assert parse_object(body, BILLED)["a"] == {"model": 1}


@pytest.mark.parametrize(
    "key",
    [
        "Model",
        "MODEL",
        "max_Tokens",
        "\u017ftream",  # LATIN SMALL LETTER LONG S folds to s
        "task\u017f",
        "\u212aind",  # KELVIN SIGN folds to k
        "tas\u212as",
    ],
)
def test_a_twin_of_a_billed_key_in_another_case_is_refused(key: str) -> None:
    for ensure_ascii in (True, False):
        body = json.dumps({"model": "m", key: 1}, ensure_ascii=ensure_ascii).encode()
        assert "lower case" in refusal(body)


def test_other_keys_may_be_written_in_any_case() -> None:
    body = b'{"model":"m","Temperature":1,"x":{"Model":1}}'
    assert parse_object(body, BILLED)["Temperature"] == 1


@pytest.mark.parametrize("value", [b"NaN", b"Infinity", b"-Infinity", b"[1,NaN]"])
def test_numbers_that_are_no_json_are_refused(value: bytes) -> None:
    assert "is not JSON" in refusal(b'{"temperature":' + value + b"}")


@pytest.mark.parametrize(
    "body",
    [
        b"\xef\xbb\xbf{}",
        json.dumps({"model": "m"}).encode("utf-16"),
        json.dumps({"model": "m"}).encode("utf-16-le"),
        json.dumps({"model": "m"}).encode("utf-32-be"),
        b"\xff",
        b'{"model":"\xff"}',
        b'{"model":"\xc0\xaf"}',  # overlong
        b'{"model":"\xed\xa0\x80"}',  # an encoded surrogate
        b'{"model":"\xe2\x82"}',  # cut inside a character
        b"{",
        b"\x00",
        b"",
        b" ",
    ],
)
def test_what_is_not_one_utf8_json_text_is_refused(body: bytes) -> None:
    message = refusal(body)
    assert message in {"The request body is not UTF-8.", "The request body is not valid JSON."}


@pytest.mark.parametrize(
    "body",
    [
        b"{} {}",
        b"{}x",
        b"{}\x00",
        b"{},",
        b'{"a":1,}',
        b"{'a':1}",
        b"{a:1}",
        b'{"a":01}',
        b'{"a":+1}',
        b'{"a":1.}',
        b'{"a":"\n"}',
        b'{"a":"\\x"}',
        b"{/**/}",
        b"\x0b{}",
        b"\xc2\xa0{}",
    ],
)
def test_what_lenient_parsers_take_and_trailing_data_are_refused(body: bytes) -> None:
    assert refusal(body) == "The request body is not valid JSON."


@pytest.mark.parametrize("body", [b"[]", b"1", b'"model"', b"null", b"true", b'[{"model":"m"}]'])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    assert refusal(body) == "The request body must be a JSON object."


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_a_hundred_thousand_levels_are_refused_and_do_not_crash(opening: bytes) -> None:
    assert refusal(b'{"x":' + opening * 100_000) == "The request body is nested too deeply."


def test_an_integer_of_five_thousand_digits_is_refused() -> None:
    refusal(b'{"max_tokens":' + b"9" * 5000 + b"}")


def test_the_members_that_are_billed_are_read_by_their_exact_type() -> None:
    fields = {"s": "x", "t": True, "n": 3, "none": None}
    assert (text(fields, "s"), text(fields, "none"), text(fields, "absent")) == ("x", None, None)
    assert (flag(fields, "t"), flag(fields, "none"), flag(fields, "absent")) == (True, False, False)
    assert whole(fields, "n", lowest=0, highest=3) == 3
    assert whole(fields, "none", lowest=0, highest=3) is None


@pytest.mark.parametrize("value", [1, 1.0, True, [], {}, "", "x" * 257, "\ud800"])
def test_a_text_member_of_another_kind_is_refused(value: object) -> None:
    with pytest.raises(ApiError) as caught:
        text({"model": value}, "model")
    assert caught.value.param == "model"


@pytest.mark.parametrize("value", [0, 1, "true", "", [], 0.0])
def test_a_flag_that_is_not_a_boolean_is_refused(value: object) -> None:
    with pytest.raises(ApiError):
        flag({"stream": value}, "stream")


@pytest.mark.parametrize("value", [-1, 4, 1.0, True, False, "3", [], 10**400, float("inf")])
def test_a_whole_number_out_of_bounds_or_of_another_kind_is_refused(value: object) -> None:
    with pytest.raises(ApiError):
        whole({"n": value}, "n", lowest=0, highest=3)


def test_a_model_must_be_there() -> None:
    for fields in ({}, {"model": None}, {"model": ""}, {"model": 5}):
        with pytest.raises(ApiError, match="`model` must be"):
            required_model(fields)


# --- writing a member ---


def test_a_member_behind_a_long_text_is_found_without_much_memory() -> None:
    body = b'{"a":"%b","opt":1}' % (b"\\n" * 2**20)
    tracemalloc.start()
    try:
        written = with_member(body, "opt", 2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert written.endswith(b'","opt":2}')
    assert peak < 5 * len(body)


VALUE = {"include_usage": True}
NEW = b'{"include_usage":true}'


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (b"{}", b'{"opt":%b}'),
        (b" { } ", b' {"opt":%b } '),
        (b"{\n\t}", b'{"opt":%b\n\t}'),
        (b'{"a":1}', b'{"opt":%b,"a":1}'),
        (b'\r\n{ "a" : 1 }\n', b'\r\n{"opt":%b, "a" : 1 }\n'),
        # the same name elsewhere is no member of the body
        (b'{"a":{"opt":1}}', b'{"opt":%b,"a":{"opt":1}}'),
        (b'{"a":[{"opt":1},"opt"]}', b'{"opt":%b,"a":[{"opt":1},"opt"]}'),
        (b'{"a":"opt","b":"\\"opt\\":1"}', b'{"opt":%b,"a":"opt","b":"\\"opt\\":1"}'),
        (b'{"a":"{\\"opt\\":","b":"}"}', b'{"opt":%b,"a":"{\\"opt\\":","b":"}"}'),
        (b'{"a":"\\\\","opt":0}', b'{"a":"\\\\","opt":%b}'),
        # replaced in its place, whatever it was
        (b'{"opt":1}', b'{"opt":%b}'),
        (b'{"opt":null,"a":1}', b'{"opt":%b,"a":1}'),
        (b'{"a":1,"opt":true}', b'{"a":1,"opt":%b}'),
        (b'{"a":1,"opt":-1.5e+3 ,"b":2}', b'{"a":1,"opt":%b ,"b":2}'),
        (b'{"opt":"a,b}\\"","b":2}', b'{"opt":%b,"b":2}'),
        (b'{ "opt" : [1,{"opt":[2]},"]"] , "b":2}', b'{ "opt" : %b , "b":2}'),
        (b'{"opt":{"opt":{"opt":1}}}', b'{"opt":%b}'),
        (b'{"a":{},"opt":{\n"x": 1\n}\n}', b'{"a":{},"opt":%b\n}'),
        (b'{"a":[],"opt"\n:\n{}\n,"z":0}', b'{"a":[],"opt"\n:\n%b\n,"z":0}'),
        # a name that is spelled with escapes is still the name
        (b'{"a":1,"o\\u0070t":{"x":1},"b":2}', b'{"a":1,"o\\u0070t":%b,"b":2}'),
        (b'{"\\u006F\\u0070\\u0074":0}', b'{"\\u006F\\u0070\\u0074":%b}'),
        (b'{"o\\\\pt":1}', b'{"opt":%b,"o\\\\pt":1}'),
    ],
)
def test_one_member_is_set_and_every_other_byte_stays(body: bytes, wanted: bytes) -> None:
    written = with_member(body, "opt", VALUE)
    assert written == wanted.replace(b"%b", NEW)
    assert parse_object(written, ()) == {
        # by its real name, in whatever place
        **json.loads(body),
        "opt": VALUE,
    }


@pytest.mark.parametrize("value", [None, 17, True, "é", [1], {}])
def test_any_value_can_be_written(value: object) -> None:
    for body in (b"{}", b'{"opt":{"a":1},"b":2}'):
        written = with_member(body, "opt", value)
        assert json.loads(written)["opt"] == value
