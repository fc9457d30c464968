"""What the demo provider says and what it counts; shared by all of its endpoints.

Tokens here are an agreement, not a tokenizer: one token is four characters, rounded up once
per text. Must not know a dialect's shapes.
"""

import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from functools import cached_property
from hashlib import blake2b
from typing import Any, Protocol

import msgspec

from llmproxy.demo.tools import Tool, ToolCall, choose_call, json_sample

TOKEN_CHARS = 4
CACHE_TOKENS_MIN = 1024
MEDIA_TOKENS = 256
WORDS_MAX = 20_000

_JOKES = (
    "Why did the invoice go to therapy? It had too many outstanding issues.",
    "A token walks into a bar. The bartender says: that will be two tokens.",
    "I asked the cache for a joke. It told me the same one again, only cheaper.",
    "Why do programmers count from zero? Because the first one was on the house.",
)
_HAIKUS = (
    "Small coins leave the purse,\none for every quiet word.\nThe ledger agrees.",
    "A stream in the night:\nchunk by chunk the answer comes.\nThe meter runs on.",
    "Autumn, an old proxy.\nA request leaps into it.\nSound of one receipt.",
)
_MARKER = re.compile(rb"\[demo:([a-z-]+)\]")
_FILLER = "the meter counts each word and the ledger keeps the sum while the stream runs quietly on"


class Request(msgspec.Struct, frozen=True, dict=True):
    """One HTTP request as the dialects see it.

    Args:
        method: the method, such as `POST`.
        path: the path without its query.
        headers: lower-case names; of a repeated header the last value.
        body: the decoded body.
        query: what follows the path, as it was sent.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    query: str = ""

    @property
    def key(self) -> str:
        """The API key, from a header of its own or as a bearer token; empty when there is none."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        bearer = token.strip() if scheme.lower() == "bearer" else ""
        return self.headers.get("x-api-key", self.headers.get("x-goog-api-key", bearer))

    @cached_property
    def mishap(self) -> str:
        """What the last marker `[demo:NAME]` in the body asks for; empty without one."""
        marked = _MARKER.findall(self.body)
        return marked[-1].decode() if marked else ""

    def digest(self) -> str:
        """24 hex digits for the ids of an answer: the same request gets the same ids."""
        return blake2b(self.path.encode() + b"\0" + self.body, digest_size=12).hexdigest()


class Counted(msgspec.Struct, frozen=True):
    """The tokens of one answer as the provider counts them for itself.

    `input` leaves out what was read from the cache or written to it; `output` has the reasoning in.
    """

    path: str
    model: str
    input: int
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0


class Answer(msgspec.Struct, frozen=True):
    """One answer: a body, or events that are sent one by one.

    Args:
        status: the HTTP status.
        headers: further headers.
        body: a JSON document; unused when `events` is given.
        events: whole server-sent events.
        counted: what the answer took; None where nothing is billed.
        delay_s: seconds before it begins.
        gap_s: seconds between its events; None for the provider's own.
        breaks_off: the connection is cut after what is given here.
        is_array: the events are the pieces of one JSON array.
    """

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    events: tuple[bytes, ...] | None = None
    counted: Counted | None = None
    delay_s: float = 0.0
    gap_s: float | None = None
    breaks_off: bool = False
    is_array: bool = False


class Question(msgspec.Struct, frozen=True):
    """What is to be answered, whatever the dialect.

    Args:
        prompt: the user's last words.
        tool_result: what a tool said since then.
        tools: the tools that may be called.
        tool_choice: the request's own `tool_choice`.
        schema: the JSON schema that the answer must keep to.
        tokens_max: where to cut the text; None for no limit.
        stops: sequences before which the text ends.
        is_filtered: a content filter ends it half-way.
    """

    prompt: str
    tool_result: str | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: Any = None
    schema: dict[str, Any] | None = None
    tokens_max: int | None = None
    stops: tuple[str, ...] = ()
    is_filtered: bool = False


class Turn(Protocol):
    """A message of a conversation."""

    role: str

    def text(self) -> str:
        """Return what it says."""


def last_asked(turns: Sequence[Turn]) -> str:
    """Return what the user said last; without any word of theirs the last one of all."""
    asked = (turn.text() for turn in reversed(turns) if turn.role == "user")
    return next(asked, turns[-1].text())


class Reply(msgspec.Struct, frozen=True):
    """What is answered and why it ended.

    `ended` is `end`, `length`, `filter`, `stop` (at the sequence `stop`) or `call` (of a tool).
    """

    text: str
    ended: str
    stop: str | None = None
    call: ToolCall | None = None

    @property
    def tokens(self) -> int:
        """Tokens of the text and of the call."""
        call = self.call
        called = count_tokens(len(call.name) + len(call.arguments)) if call else 0
        return count_tokens(len(self.text)) + called

    def pieces(self) -> list[str]:
        """The text in words, as a stream sends it."""
        return re.findall(r"\s*\S+|\s+", self.text)


def count_tokens(chars: int) -> int:
    """Tokens of a text of so many characters."""
    return -(-chars // TOKEN_CHARS)


def generate(question: Question) -> Reply:
    """Answer a question."""
    limit = question.tokens_max
    if question.tool_result is None:
        call = choose_call(question.tools, question.tool_choice, question.prompt)
        called = Reply("", "call", call=call)
        if call is not None and (limit is None or called.tokens <= limit):
            return called
    text = _compose(question)
    ended, stop = "end", None
    if question.is_filtered:
        text, ended = text[: len(text) // 2], "filter"
    found = [(at, s) for s in question.stops if s and (at := text.find(s)) >= 0]
    if found:
        at, stop = min(found)
        text, ended = text[:at], "stop"
    if limit is not None and count_tokens(len(text)) > limit:
        text, ended, stop = text[: limit * TOKEN_CHARS], "length", None
    return Reply(text, ended, stop)


def _compose(question: Question) -> str:
    if question.schema is not None:
        sample = json_sample(question.schema, question.prompt)
        return msgspec.json.encode(sample).decode()
    if question.tool_result is not None:
        return f"The tool says: “{_quoted(question.tool_result)}”."
    return _say(question.prompt)


def _say(prompt: str) -> str:
    asked = prompt.lower()
    choice = blake2b(prompt.encode("utf-8", "replace"), digest_size=1).digest()[0]
    if (words := re.search(r"\b(\d{1,6})\s+words\b", asked)) is not None:
        filler = _FILLER.split()
        return " ".join(filler[i % len(filler)] for i in range(min(int(words[1]), WORDS_MAX)))
    if "haiku" in asked:
        return _HAIKUS[choice % len(_HAIKUS)]
    if "joke" in asked:
        return _JOKES[choice % len(_JOKES)]
    if re.match(r"\s*(hi|hello|hey)\b", asked):
        return "Hello! I am the demo provider: I know nothing, and I count every token."
    return (
        f"You said: “{_quoted(prompt)}”. I am only the demo provider, "
        "so that is all I know about it."
    )


def _quoted(text: str) -> str:
    return " ".join(text.split())[:80]


class PromptCache:
    """Remembers prompt prefixes that were seen, as the providers' prompt caches do.

    Args:
        entries_max: how many prefixes are kept; the least recently used goes first.
    """

    def __init__(self, entries_max: int = 16_384) -> None:
        self._entries_max = entries_max
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def read_and_remember(self, scope: str, text: str, ends: Iterable[int]) -> int:
        """Find the longest prefix seen before and remember all of them.

        Args:
            scope: what a cache entry belongs to: key and model.
            text: the whole prompt.
            ends: where prefixes end, in characters, ascending.

        Returns:
            The length of the longest known prefix, in characters; 0 when none is known.
        """
        running = blake2b(scope.encode("utf-8", "replace") + b"\0", digest_size=16)
        start = known = 0
        for end in ends:
            running.update(text[start:end].encode("utf-8", "replace"))
            start = end
            digest = running.digest()
            if digest in self._seen:
                known = end
            self._seen[digest] = None
            self._seen.move_to_end(digest)
        while len(self._seen) > self._entries_max:
            self._seen.popitem(last=False)
        return known
