"""Owns which clients there are, and what of a command or page names one of them."""

import difflib
import re

from llmproxy.client_settings import libraries, programs
from llmproxy.client_settings.client import Client
from llmproxy.errors import NotFoundError, RefusedError

_CLIENTS = (
    *(libraries.SHELL, libraries.CURL, libraries.OPENAI_PYTHON, libraries.OPENAI_NODE),
    *(libraries.ANTHROPIC_PYTHON, libraries.ANTHROPIC_NODE, libraries.LANGCHAIN),
    *(libraries.LLAMAINDEX, libraries.VERCEL_AI_SDK),
    *(libraries.GOOGLE_GENAI, libraries.GOOGLE_GENAI_NODE),
    *(programs.CLAUDE_CODE, programs.CODEX, programs.AIDER, programs.CONTINUE),
    *(programs.OPEN_WEBUI, programs.LLM, programs.CURSOR),
)
NEAREST_MAX = 3
_NAME_CHARS_MAX = 100
# What can stand in quotes in every language of the texts, and be nothing but an address there.
_ADDRESS = re.compile(
    r"https?://([\w.-]+|\[[0-9a-f:.]+\])(:\d{1,5})?(/[\w.~-]+)*", re.ASCII | re.IGNORECASE
)


def clients() -> tuple[Client, ...]:
    """Return all known clients, in the order in which they are shown."""
    return _CLIENTS


def find_client(name: str) -> Client:
    """Return the client of a name.

    Raises:
        NotFoundError: there is none; the message has the nearest.
    """
    for client in _CLIENTS:
        if client.name == name.lower():
            return client
    near = _nearest(name[:_NAME_CHARS_MAX].lower())
    hint = f" Nearest: {', '.join(near)}." if near else ""
    msg = (
        f"{name!r:.120} is no client that is known.{hint} All: llmproxy clients list. What is not "
        "there and speaks to OpenAI-compatible servers takes the address of openai-python."
    )
    raise NotFoundError(msg)


def _nearest(wanted: str) -> list[str]:
    """Return names that have the wanted one in them, then those that are written like it."""
    named = [
        each.name for each in _CLIENTS if wanted and wanted in f"{each.name} {each.title}".lower()
    ]
    alike = difflib.get_close_matches(wanted, [each.name for each in _CLIENTS], n=NEAREST_MAX)
    return list(dict.fromkeys([*named, *alike]))[:NEAREST_MAX]


def check_address(url: str) -> str:
    """Return a server's address without its trailing slash.

    Raises:
        RefusedError: it is none, or has what the texts add themselves.
    """
    address = url.strip().rstrip("/")
    if not _ADDRESS.fullmatch(address):
        msg = f"{url!r:.120} is no address such as https://llm.example.org"
        raise RefusedError(msg)
    if re.search(r"/v1(/|$)", address):
        msg = f"Give the server's address alone, without {address[address.index('/v1') :]!r:.60}."
        raise RefusedError(msg)
    return address
