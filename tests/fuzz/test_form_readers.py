"""What the gate for forms takes, other readers read as it does, in whatever matters for the bill.

One is Python's own reader of mail, which takes a mere LF for the end of a line and much besides;
the other cuts at whatever looks like the boundary, and finds names wherever they stand in a part.
"""

import email
import re

from hypothesis import example, given
from hypothesis import strategies as st

from llmproxy.dialects.multipart_gate import parse_form
from llmproxy.errors import ApiError
from tests.fuzz.strategies import THOROUGH
from tests.support.forms import part

BOUNDARY = "b1"
BILLED = frozenset({"model", "n"})
ENDS = st.sampled_from(["\r\n"] * 12 + ["\n", "\r", "", "\r\n\r\n", " \r\n", "\r\n "])
DELIMITERS = st.sampled_from(["--b1"] * 12 + ["--b", "-b1", "--b1 ", "--b1x", "--b1--", "\n--b1"])
NAMES = st.sampled_from(
    [
        *('name="model"', 'name="n"', 'name="x"', 'name="Model"', "name=model", 'name="model[]"'),
        *('name="mo%64el"', 'name="x"; name="model"', "name*=utf-8''model", 'name="mod\\el"'),
        *('filename="model"; name="x"', 'NAME="model"', 'name="x"; filename="a\\"; name=\\"model"'),
    ]
)
HEADERS = st.sampled_from(
    [
        *([""] * 8),
        *("Content-Type: text/plain\r\n", "content-type: text/plain; charset=utf-16\r\n"),
        *("Content-Transfer-Encoding: base64\r\n", "Content-Length: 3\r\n", "X: y\r\n"),
        *(" folded\r\n", 'Content-Disposition: form-data; name="model"\r\n'),
        "Content-Type: multipart/mixed\r\n",
    ]
)
VALUES = st.sampled_from(["gpt", "dear", "1", "", "a\r\nb", "--b1", "\r\n--b1--\r\n", "Z3B0"])


@st.composite
def forms(draw: st.DrawFn) -> bytes:
    """A form, good or nearly so."""
    text = ""
    for _ in range(draw(st.integers(1, 4))):
        text += draw(DELIMITERS) + draw(ENDS)
        text += draw(HEADERS)
        text += f"Content-Disposition: form-data; {draw(NAMES)}" + draw(ENDS)
        text += draw(HEADERS) + draw(ENDS)
        text += draw(VALUES) + draw(ENDS)
    end = draw(st.sampled_from(["--b1--\r\n"] * 6 + ["--b1--", "--b1", "--b1--\r\nx", "--b1--x"]))
    return (text + end).encode()


def read_as_mail(body: bytes, content_type: bytes) -> list[str]:
    """The models that a reader of mail finds."""
    message = email.message_from_bytes(b"Content-Type: " + content_type + b"\r\n\r\n" + body)
    assert message.is_multipart()
    found = []
    for one in message.walk():
        name = one.get_param("name", header="content-disposition")
        name = name[2] if isinstance(name, tuple) else name
        if name is not None and name.casefold().removesuffix("[]") == "model":
            content = one.get_payload(decode=True)
            assert isinstance(content, bytes)
            found.append(content.decode())
    return found


def read_roughly(body: bytes) -> list[str]:
    """The models that a reader finds who looks for boundaries and names anywhere."""
    found = []
    for one in re.split(rb"\r?\n?--b1", b"\r\n" + body):
        head, _, content = one.replace(b"\r\n", b"\n").partition(b"\n\n")
        if re.search(rb"""\bname\*?=[^;]*model""", head, re.IGNORECASE):
            found.append(content.removesuffix(b"\n").decode())
    return found


@given(forms())
@example(part('name="model"', b"gpt", BOUNDARY) + b"--b1--\r\n")
@example(
    part('name="model"', b"gpt", BOUNDARY)
    + part('name="x"', b'\n--b1\nContent-Disposition: form-data; name="model"\n\ndear', BOUNDARY)
    + b"--b1--\r\n"
)
@THOROUGH
def test_all_readers_find_the_model_that_is_billed(body: bytes) -> None:
    try:
        form = parse_form(body, BILLED, ("file",))
    except ApiError:
        return
    billed = [] if "model" not in form.fields else [form.fields["model"]]
    assert read_as_mail(body, form.content_type) == billed
    assert [value.replace("\r\n", "\n") for value in billed] == read_roughly(body)
