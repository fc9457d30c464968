"""Owns the gate for forms with files: what is priced must be what the provider reads of them.

As `json_gate.py` does for JSON, it refuses what two parsers could read differently: a boundary
that stands elsewhere too, text behind the end, names that are given twice or in another spelling,
headers that change what a part means (RFC 7578; reference security.md S13). The boundary is the
one that the body itself begins with, and that is also the one that the provider is told.
"""

import re
from collections.abc import Collection
from typing import Any, NamedTuple

from multipart import MultipartError, MultipartSegment, PushMultipartParser

from llmproxy.errors import ApiError, invalid_request

PARTS_MAX = 256
HEADERS_MAX = 8
HEADER_BYTES_MAX = 2048
HEAD_BYTES = 128 * 1024
"""Of each file, so much is kept to see what it is."""

_FIRST_LINE = re.compile(rb"--([0-9A-Za-z'()+_,./:=?-]{1,70})\r\n")
_TOKEN = re.compile(rb"[0-9A-Za-z'+_.-]+")
_NAME = re.compile(r"[0-9A-Za-z_.-]+(?:\[[0-9A-Za-z_.-]*\])*")
_DISPOSITION = re.compile(
    r'form-data; ?name="[^"\\]*"(?:; ?filename="[^"\\]*")?(?:; ?filename\*=[^";\\]+)?'
)
_FILENAME = re.compile(r"""; ?filename\*?="?([^";]*)""")
_ENCODINGS = ("binary", "8bit", "7bit")
_CHARSETS = (None, "utf-8", "utf8", "us-ascii")


class File(NamedTuple):
    """A file in a form, as far as it matters."""

    name: str
    """Of the form's field."""
    size: int
    head: bytes
    """How it begins."""
    filenames: tuple[str, ...] = ()
    """As they are written, be it once for each of `filename` and `filename*`."""
    content_type: str | None = None
    """In lower case, without parameters."""


class Form(NamedTuple):
    """What a form holds."""

    fields: dict[str, Any]
    """Texts by name: those that money depends on, and how often the others may be given."""
    files: list[File]
    text_bytes: int
    """All of the body but its files."""
    content_type: bytes
    """What the provider is told that the body is."""


def boundary_of(body: bytes) -> bytes | None:
    """Return the boundary that a form begins with; None for a body that is no form."""
    match = _FIRST_LINE.match(body)
    return None if match is None else match[1]


def parse_form(body: bytes, billed: Collection[str], files: Collection[str]) -> Form:
    """Return what stands in a `multipart/form-data` body.

    Args:
        body: the request body.
        billed: fields that money depends on: text, at most once each, in this spelling only.
        files: the fields that may hold files, be it several by `name[]`.

    Raises:
        ApiError: 400, when the body is not one unambiguous form, or a file stands elsewhere.
    """
    boundary = boundary_of(body)
    if boundary is None:
        raise invalid_request(
            "The request body must be a form with files (multipart/form-data), as the SDKs send it."
        )
    form = Form({}, [], len(body), b"multipart/form-data; boundary=" + _quoted(boundary))
    try:
        parts, text_bytes = _read_parts(body, boundary, billed, files, form)
    except (MultipartError, UnicodeDecodeError) as error:
        raise invalid_request(f"The form in the request body cannot be read: {error}.") from error
    end = b"--" + boundary + b"--"
    if body.count(b"--" + boundary) != parts + 1 or not body.endswith((end, end + b"\r\n")):
        raise _ambiguous("its boundary must stand between its parts and at its end, nowhere else")
    return form._replace(text_bytes=text_bytes)


def _read_parts(
    body: bytes, boundary: bytes, billed: Collection[str], files: Collection[str], form: Form
) -> tuple[int, int]:
    """Take all parts into a form; return how many there are, and the bytes beside the files."""
    text_bytes, parts = len(body), 0
    segment: MultipartSegment | None = None
    content = b""
    with PushMultipartParser(
        boundary,
        max_header_size=HEADER_BYTES_MAX,
        max_header_count=HEADERS_MAX,
        max_segment_count=PARTS_MAX,
        strict=True,
    ) as parser:
        for event in parser.parse(body):
            if isinstance(event, MultipartSegment):
                segment, content = event, b""
                _check_headers(segment)
            elif event is not None:
                content = content + event if content else bytes(event)
            elif segment is not None:
                parts += 1
                text_bytes -= _take(segment, content, billed, files, form)
    return parts, text_bytes


def _take(
    segment: MultipartSegment,
    content: bytes,
    billed: Collection[str],
    files: Collection[str],
    form: Form,
) -> int:
    """Take one part into a form; return the bytes of a file, 0 for a text."""
    name = segment.name or ""
    if not _NAME.fullmatch(name):
        raise _ambiguous(f"the name of a field, {name!r:.60}, has unusual characters")
    base = re.split(r"[\[.]", name, maxsplit=1)[0]
    if base.casefold() in billed and name not in billed:
        raise invalid_request(f"The field {name!r:.60} must be written {base.casefold()!r}.")
    if segment.filename is not None or segment.content_type not in {None, "text/plain"}:
        if base not in files:
            raise invalid_request(f"The field {name!r:.60} cannot be a file.", param=name[:60])
        filenames = tuple(_FILENAME.findall(segment.header("Content-Disposition")))
        head = content[:HEAD_BYTES]
        form.files.append(File(name, len(content), head, filenames, segment.content_type))
        return len(content)
    if base in files:
        raise invalid_request(f"The field {name!r:.60} must be a file.", param=name[:60])
    if name in form.fields and name in billed:
        raise _ambiguous(f"the field {name!r} is given twice")
    form.fields[name] = content.decode() if name in billed else None
    return 0


def _check_headers(segment: MultipartSegment) -> None:
    """Refuse headers that could make a part another one for another parser."""
    names = [name for name, _ in segment.headerlist]
    if len(set(names)) < len(names):
        raise _ambiguous("a part has a header twice")
    for name, value in segment.headerlist:
        if name == "Content-Disposition":
            if not _DISPOSITION.fullmatch(value):
                raise _ambiguous("name and filename of a part must be in plain double quotes")
        elif name == "Content-Transfer-Encoding":
            if value.lower() not in _ENCODINGS:
                raise _ambiguous("a part must not be encoded")
        elif name not in {"Content-Type", "Content-Length"}:
            raise _ambiguous(f"a part has the header {name:.60}")
    charset = segment.charset
    if (charset.lower() if charset else None) not in _CHARSETS:
        raise _ambiguous("a part is not in UTF-8")


def _quoted(boundary: bytes) -> bytes:
    return boundary if _TOKEN.fullmatch(boundary) else b'"' + boundary + b'"'


def _ambiguous(why: str) -> ApiError:
    return invalid_request(f"The form in the request body is ambiguous: {why}.")


def with_numbers(fields: dict[str, Any], whole: Collection[str]) -> dict[str, Any]:
    """Return the fields of a form as JSON would have them: whole numbers, true and false.

    What is neither stays text, which whoever wants a number refuses.
    """
    typed = dict(fields)
    for name, value in fields.items():
        if name in whole and isinstance(value, str) and re.fullmatch(r"\d{1,9}", value, re.ASCII):
            typed[name] = int(value)
        elif name == "stream" and value in {"true", "false"}:
            typed[name] = value == "true"
    return typed
