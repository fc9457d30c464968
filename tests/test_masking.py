"""What a client must not see of a provider's error, however its body is cut into pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy.masking import MaskedBody, without_ids

SECRET = "sk-proj_secretsecret-org-1"
WORDS = (
    *(
        SECRET,
        SECRET[:9],
        SECRET[9:],
        "org-",
        "org_",
        "proj_",
        "org-AbCdEfGh12345678",
        "proj_1234567890123456",
    ),
    *("org-AbCdEfGh1234567", "o", "or", "pro", "A" * 70, "sk", "-", " ", "\\n", "***"),
)


def masked(*pieces: bytes, secret: str = SECRET) -> bytes:
    body = MaskedBody(secret)
    return b"".join([*(body.feed(piece) for piece in pieces), body.finish()])


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (b"in organization org-AbCdEfGh12345678 on", b"in organization *** on"),
        (b"proj_AbCdEfGh12345678: no", b"***: no"),
        (b"`org_01hfgabcdefghijk`", b"`***`"),
        (b"\\norg-AbCdEfGh12345678\\n", b"\\n***\\n"),
        (b"an org-wide limit, org-123456789012345, organization-level", None),
        (b"key sk-proj_secretsecret-org-1.", b"key ***."),
        (b"sk-proj_secretsecret-org-1234567890123456", b"***234567890123456"),
        (b"org-AbCdEfGh12345678" + SECRET.encode(), b"******"),
        (b"Invalid schema for function 'org_directory_lookup': 'proj_settings'", None),
        (b"org_" + b"a" * 30, None),  # no digit: a name that somebody has chosen
        (b"", b""),
    ],
)
def test_the_key_and_the_ids_of_the_account_are_masked(text: bytes, seen: bytes | None) -> None:
    assert masked(text) == (text if seen is None else seen)


@given(st.lists(st.sampled_from(WORDS), max_size=12), st.data())
def test_where_a_body_is_cut_does_not_matter(words: list[str], data: st.DataObject) -> None:
    whole = "".join(words).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert masked(*pieces) == masked(whole)
    assert SECRET.encode() not in masked(*pieces)


def test_byte_by_byte_it_is_the_same_and_little_is_held_back() -> None:
    text = b"a" * 1000 + b"org-" + b"B" * 1000 + SECRET.encode() + b"c" * 1000
    body, passed = MaskedBody(SECRET), b""
    for number in range(len(text)):
        passed += body.feed(text[number : number + 1])
        assert len(body._held) <= 69 + len(SECRET)
    assert passed + body.finish() == masked(text)


def test_without_a_secret_the_ids_are_masked_all_the_same() -> None:
    assert masked(b"to org-AbCd", b"EfGh12345678 now", secret="") == b"to *** now"


def test_ids_in_headers_are_masked() -> None:
    headers = [(b"x-org", b"org-AbCdEfGh12345678"), (b"x-request-id", b"req_1")]
    assert without_ids(headers) == [(b"x-org", b"***"), (b"x-request-id", b"req_1")]


def test_an_id_that_ends_as_the_key_begins_is_masked_whole() -> None:
    assert (
        masked(b"org-AbCdEfGh12345678sk-", b" x")
        == masked(b"org-AbCdEfGh12345678sk- x")
        == b"***- x"
    )


def test_a_key_with_slashes_is_masked_however_json_writes_them() -> None:
    secret = "sk-ab/cd/ef"
    for text in (b'{"m":"sk-ab/cd/ef"}', b'{"m":"sk-ab\\/cd\\/ef"}'):
        for cut in range(len(text)):
            assert masked(text[:cut], text[cut:], secret=secret) == b'{"m":"***"}'
