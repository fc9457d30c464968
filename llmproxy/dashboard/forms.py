"""Owns how forms, and what stands behind an address's question mark, are read."""

from collections.abc import Collection
from typing import Any
from urllib.parse import parse_qsl

from litestar import Request

from llmproxy.dashboard.errors import FormError

FORM_FIELDS_MAX = 30
PAGE_MAX = 99_999_999
"""The number of a page that no list has: the last one is shown in its place."""


async def read_form(
    request: Request[Any, Any, Any], *, verbatim: Collection[str] = ()
) -> dict[str, str]:
    """Return a form's fields without spaces around them, which `verbatim` ones keep.

    Of two of a name the last counts.

    Raises:
        FormError: it is no form that a page of ours has sent.
    """
    try:
        return _fields(await request.body(), verbatim)
    except ValueError as error:
        raise FormError("The form cannot be read. Load the page again.") from error


def read_query(request: Request[Any, Any, Any]) -> dict[str, str]:
    """Return what stands behind the address's question mark, as `read_form` does.

    Raises:
        FormError: it is nothing that a link or form of ours has made.
    """
    try:
        return _fields(request.scope["query_string"])
    except ValueError as error:
        raise FormError("The address cannot be read. Follow a link to this page again.") from error


def read_page_number(request: Request[Any, Any, Any], name: str = "page") -> int:
    """Return the number of the page that an address asks for, at most PAGE_MAX.

    What is no number counts as 1.
    """
    text = str(request.query_params.get(name, ""))
    if not (text.isascii() and text.isdecimal()):
        return 1
    digits = text.lstrip("0")
    if len(digits) > len(str(PAGE_MAX)):  # not made a number: it may have thousands of digits
        return PAGE_MAX
    return int(digits or 1)


def _fields(encoded: bytes, verbatim: Collection[str] = ()) -> dict[str, str]:
    pairs = parse_qsl(
        encoded.decode("ascii"),
        keep_blank_values=True,
        errors="strict",
        max_num_fields=FORM_FIELDS_MAX,
    )
    return {name: value if name in verbatim else value.strip() for name, value in pairs}
