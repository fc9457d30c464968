"""What stands around the server while it is killed: `python -m benchmarks.crash_load ROLE`.

Three processes, each with a journal: a file that gets a line as soon as something has happened.

- `provider` answers every request; its line is the TAG of a request that has reached it.
- `clients` ask without end; `head TAG REQUEST_ID` when the head of a good answer has come,
  `end TAG` when all of it has, `again TAG` when a request is sent once more, `other STATUS` for an
  answer of another kind.
- `operator` adds credit without end; its line is the number of a top-up that is done.

The TAG of a request is a number that no other request has: the first word of its message, and its
`Idempotency-Key`, by whose hash its hold is found. A request whose connection is lost before its
answer begins is sent again with the same key, as careful clients do. A token costs one nano-USD
here; how much an answer costs follows from the tag: `cost_nanousd`.
"""

import argparse
import asyncio
import contextlib
import hashlib
import itertools
import json
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import uvloop
from typing_extensions import override

from llmproxy import accounts, crediting
from llmproxy.clock import Clock
from llmproxy.errors import LlmproxyError
from llmproxy.storage.database import AdminDatabase
from tests.support.answers import (
    anthropic_stream,
    anthropic_usage,
    openai_chat,
    openai_chat_stream,
    openai_usage,
)
from tests.support.stub_provider import Out, SeenRequest, StubProvider

MODELS = {"openai": "crash-chat", "anthropic": "crash-messages"}
PATHS = {"openai": "/v1/openai/chat/completions", "anthropic": "/v1/anthropic/v1/messages"}
FIRST_TAG = 100_000
BODY_BYTES = 300
INPUT_TOKENS_HELD = BODY_BYTES // 3 + 600
INPUT_TOKENS = 30
STREAM_TOKENS_HELD = 256
"""The least that can be set; words are so long that the holds of most streams grow."""
MAX_TOKENS = 1_000
WORD = "-".join(["word"] * 8) + " "
WORDS_MAX = 40
GAP_S = 0.02
ANTHROPIC_SHARE, LEAVING_SHARE = 0.25, 0.08
RETRY_S = 0.05
TOP_UP_NANOUSD = (20, 300)
"""About as much as is spent: some users have enough, and some run out in the middle of a stream."""
TOP_UP_PAUSE_S = 0.02

Note = Callable[[str], object]


def idempotency_hash(tag: int) -> bytes:
    """What the ledger knows a request by."""
    return hashlib.sha256(str(tag).encode()).digest()


def is_stream(tag: int) -> bool:
    """Whether a request asks for a stream."""
    return tag % 5 != 0


def words(tag: int) -> list[str]:
    """What the answer to a request says, a token each."""
    return [WORD] * (1 + tag % WORDS_MAX)


def cost_nanousd(tag: int) -> int:
    """What the complete answer to a request costs."""
    return INPUT_TOKENS + len(words(tag))


def catalog() -> str:
    """A catalog with both models, at one nano-USD for a token of any kind."""
    price = "0.001"
    cached = {"cache_read": price, "cache_write": price, "cache_write_1h": price}
    model = {"in_price": price, "out_price": price, "max_output_tokens": 10**6, "prices": cached}
    models = {f"{provider}/{name}": model for provider, name in MODELS.items()}
    return json.dumps(
        {"schema": 1, "currency": "USD", "unit": "per 1M tokens", "updated": "2026-11-26"}
        | {"models": models}
    )


# --- the provider ---------------------------------------------------------------------------


class Provider(StubProvider):
    """Notes each request as soon as all of it has come, and answers it."""

    def __init__(self, note: Note) -> None:
        super().__init__()
        self._note = note
        self.handle = answer

    @override
    def seen(self, request: SeenRequest) -> None:
        self._note(str(_tag(request)))


def _tag(request: SeenRequest) -> int:
    content: str = request.json()["messages"][0]["content"]
    return int(content.split(maxsplit=1)[0])


async def answer(request: SeenRequest, out: Out) -> None:
    """Answer like OpenAI or like Anthropic, and report the usage that `cost_nanousd` expects."""
    body, said = request.json(), words(_tag(request))
    given = (INPUT_TOKENS, len(said))
    if not body["stream"]:
        await out.json(200, openai_chat("".join(said), *given, model=body["model"]))
    elif request.target.endswith(b"/messages"):
        usage = anthropic_usage(*given)
        await out.sse(anthropic_stream(said, usage, model=body["model"]), GAP_S)
    else:
        usage = openai_usage(*given)
        await out.sse(openai_chat_stream(said, usage, model=body["model"]), GAP_S)


def provide(note: Note) -> None:
    """Serve on a free port, which is printed."""
    with Provider(note) as provider:
        print(provider.port, flush=True)
        signal.pause()


# --- the clients ----------------------------------------------------------------------------


def request(provider: str, key: str, tag: int) -> bytes:
    """One request, its body of BODY_BYTES."""
    stream = is_stream(tag)
    message = {"role": "user", "content": f"{tag} "}
    value = {"model": MODELS[provider], "max_tokens": MAX_TOKENS, "stream": stream}
    value["messages"] = [message]
    if provider == "openai" and stream:
        value["stream_options"] = {"include_usage": True}
    message["content"] += "x" * (BODY_BYTES - len(json.dumps(value)))
    head = f"POST {PATHS[provider]} HTTP/1.1\r\nhost: crash\r\nauthorization: Bearer {key}\r\n"
    head += f"idempotency-key: {tag}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {BODY_BYTES}\r\n\r\n"
    return (head + json.dumps(value)).encode()


class Client:
    """One user's client: one request after the other."""

    def __init__(self, key: str, tags: Iterator[int], note: Note, rng: random.Random) -> None:
        self._key, self._tags, self._note, self._rng = key, tags, note, rng
        self._unanswered: tuple[int, bytes] | None = None

    async def run(self, port: int) -> None:
        """Ask without end, and connect again whenever the server has gone."""
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                with contextlib.closing(writer):
                    while await self._ask(reader, writer):
                        pass
            await asyncio.sleep(RETRY_S * self._rng.uniform(0.5, 1.5))

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Send one request and read its answer; False to leave in the middle of it."""
        if self._unanswered is None:
            self._unanswered = self._new_request()
        else:
            self._note(f"again {self._unanswered[0]}")
        tag, data = self._unanswered
        writer.write(data)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        self._unanswered = None
        headers = dict(line.split(": ", 1) for line in lines[1:] if line)
        status = lines[0].split()[1]
        if status == "200":
            self._note(f"head {tag} {headers['x-llmproxy-request-id']}")
        else:
            self._note(f"other {status}")
        if status == "200" and is_stream(tag) and self._rng.random() < LEAVING_SHARE:
            await reader.readline()
            return False
        if "content-length" in headers:
            await reader.readexactly(int(headers["content-length"]))
        else:
            while size := int(await reader.readline() or b"0", 16):
                await reader.readexactly(size + 2)
            await reader.readexactly(2)
        if status == "200":
            self._note(f"end {tag}")
        else:
            await asyncio.sleep(RETRY_S)
        return True

    def _new_request(self) -> tuple[int, bytes]:
        tag = next(self._tags)
        is_anthropic = is_stream(tag) and self._rng.random() < ANTHROPIC_SHARE
        return tag, request("anthropic" if is_anthropic else "openai", self._key, tag)


async def ask(port: int, keys: list[str], seed: int, note: Note) -> None:
    """Run a client for each key."""
    tags = itertools.count(FIRST_TAG)
    async with asyncio.TaskGroup() as group:
        for number, key in enumerate(keys):
            rng = random.Random(f"{seed} client {number}")
            group.create_task(Client(key, tags, note, rng).run(port))


# --- the operator ---------------------------------------------------------------------------


def user_name(number: int) -> str:
    return f"user-{number}"


def top_up_key(number: int) -> str:
    """The idempotency key of a top-up."""
    return f"top-up-{number}"


def top_up(seed: int, number: int, users: int) -> tuple[str, int]:
    """Whom a top-up is for, and its nano-USD: the same again when it is tried again."""
    rng = random.Random(f"{seed} top-up {number}")
    return user_name(rng.randrange(users)), rng.randint(*TOP_UP_NANOUSD)


def operate(path: Path, users: int, seed: int, first: int, note: Note) -> None:
    """Add credit without end, as `credits add` does; what fails is tried again with its key."""
    for number in itertools.count(first):
        while not _add(path, number, *top_up(seed, number, users)):
            time.sleep(RETRY_S)
        note(str(number))
        time.sleep(TOP_UP_PAUSE_S)


def _add(path: Path, number: int, user: str, amount: int) -> bool:
    try:
        with contextlib.closing(AdminDatabase(path)) as database, database.write() as tx:
            crediting.credit(
                tx,
                accounts.find_user(tx, user).wallet_id,
                amount,
                actor="crash",
                reason=None,
                now_ms=Clock().now_ms(),
                idempotency_key=top_up_key(number),
            )
    except LlmproxyError:
        return False
    return True


def main() -> None:
    """Play one role until killed. The clients' keys are read from standard input."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("role", choices=["provider", "clients", "operator"])
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--port", type=int, help="of the server, for the clients")
    parser.add_argument("--database", type=Path, help="for the operator")
    parser.add_argument("--users", type=int, help="for the operator: how many there are")
    parser.add_argument("--first", type=int, help="for the operator: the first top-up's number")
    options = parser.parse_args()
    # Unbuffered: a line is in the file before anything else happens.
    with options.journal.open("ab", buffering=0) as journal:

        def note(line: str) -> None:
            journal.write(line.encode() + b"\n")

        if options.role == "provider":
            provide(note)
        elif options.role == "clients":
            uvloop.run(ask(options.port, input().split(), options.seed, note))
        else:
            operate(options.database, options.users, options.seed, options.first, note)


if __name__ == "__main__":
    main()
