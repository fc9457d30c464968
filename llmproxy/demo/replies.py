"""What the demo provider says and what it counts; shared by both of its dialects.

Tokens here are an agreement, not a tokenizer: one token is four characters, rounded up once
per text.
"""

import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import blake2b

import msgspec

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
_FILLER = "the meter counts each word and the ledger keeps the sum while the stream runs quietly on"


class Request(msgspec.Struct, frozen=True):
    """One HTTP request as the dialects see it.

    Args:
        method: the method, such as `POST`.
        path: the path without its query.
        headers: lower-case names; of a repeated header the last value.
        body: the decoded body.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def key(self) -> str:
        """The API key, from `x-api-key` or as a bearer token; empty when there is none."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        bearer = token.strip() if scheme.lower() == "bearer" else ""
        return self.headers.get("x-api-key", bearer)

    def digest(self) -> str:
        """24 hex digits for the ids of an answer: the same request gets the same ids."""
        return blake2b(self.path.encode() + b"\0" + self.body, digest_size=12).hexdigest()


class Answer(msgspec.Struct, frozen=True):
    """One answer: a body, or events that are sent one by one.

    Args:
        status: the HTTP status.
        headers: further headers.
        body: a JSON document; unused when `events` is given.
        events: whole server-sent events.
    """

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    events: tuple[bytes, ...] | None = None


class Reply(msgspec.Struct, frozen=True):
    """The generated text and why it ended: `end`, `length`, or at the stop sequence `stop`."""

    text: str
    ended: str
    stop: str | None = None

    @property
    def tokens(self) -> int:
        """Tokens of the text."""
        return count_tokens(len(self.text))

    def pieces(self) -> list[str]:
        """The text in words, as a stream sends it."""
        return re.findall(r"\s*\S+|\s+", self.text)


def count_tokens(chars: int) -> int:
    """Tokens of a text of so many characters."""
    return -(-chars // TOKEN_CHARS)


def generate(prompt: str, tokens_max: int | None, stops: Sequence[str]) -> Reply:
    """Answer a prompt.

    Args:
        prompt: the user's last message.
        tokens_max: where to cut the text; None for no limit.
        stops: sequences before which the text ends.
    """
    text = _compose(prompt)
    ended, stop = "end", None
    found = [(at, s) for s in stops if s and (at := text.find(s)) >= 0]
    if found:
        at, stop = min(found)
        text, ended = text[:at], "stop"
    if tokens_max is not None and count_tokens(len(text)) > tokens_max:
        text, ended, stop = text[: tokens_max * TOKEN_CHARS], "length", None
    return Reply(text, ended, stop)


def _compose(prompt: str) -> str:
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
    quoted = " ".join(prompt.split())[:80]
    return f"You said: “{quoted}”. I am only the demo provider, so that is all I know about it."


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
