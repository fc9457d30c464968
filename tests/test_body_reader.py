"""Where bodies are read: heavy ones must not keep others waiting."""

import asyncio
import threading

from llmproxy.body_reader import BodyReader
from llmproxy.dialects.json_gate import is_light

SHORT = b"{}"
LIGHT = b'{"x":"' + b"y" * 100_000 + b'"}'
HEAVY = b"[" + b"1," * 100_000 + b"1]"


def test_a_short_body_is_read_at_once_and_a_longer_one_in_a_thread() -> None:
    async def work() -> None:
        bodies = BodyReader()
        here = threading.get_ident()
        assert await bodies.run(SHORT, threading.get_ident) == here
        assert await bodies.run(LIGHT, threading.get_ident) != here
        bodies.close()

    asyncio.run(work())


def test_heavy_bodies_are_read_one_after_the_other_and_keep_nobody_waiting() -> None:
    async def work() -> None:
        bodies = BodyReader()
        may_end = threading.Event()
        at_work: list[int] = []

        def read(number: int) -> int:
            at_work.append(number)
            may_end.wait(10)
            return number

        heavy = [
            asyncio.ensure_future(bodies.run(HEAVY, lambda number=number: read(number)))  # type: ignore[misc]
            for number in range(20)
        ]
        for _ in range(50):
            assert await asyncio.wait_for(bodies.run(LIGHT, lambda: "light"), 5) == "light"
        assert at_work == [0]
        may_end.set()
        assert await asyncio.wait_for(asyncio.gather(*heavy), 10) == list(range(20))
        bodies.close()

    asyncio.run(work())


def test_only_a_body_with_room_for_many_values_is_counted_through() -> None:
    unit = b"0,"
    fits, too_many = unit * 65_536, unit * 65_537
    assert is_light(fits)
    assert not is_light(too_many)
    assert is_light(too_many.replace(b",", b" "))
