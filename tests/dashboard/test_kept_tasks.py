"""What goes on when whoever asked for it has gone, and what is remembered of who asks."""

import asyncio
import gc
import weakref

import pytest

from llmproxy.dashboard.kept_tasks import KeptTasks
from llmproxy.dashboard.session_users import SessionUsers


def test_a_job_goes_on_though_nothing_else_holds_it() -> None:
    """As one would whose own future is held by nobody else: it would be collected in its middle."""
    jobs, ended = KeptTasks(), list[str]()

    async def job(begun: asyncio.Event) -> None:
        awaited = asyncio.get_running_loop().create_future()
        held.append(weakref.ref(awaited))
        begun.set()
        await awaited
        ended.append("done")

    held: list[weakref.ref[asyncio.Future[None]]] = []

    async def leave() -> None:
        begun = asyncio.Event()
        asked = asyncio.create_task(jobs.run(job(begun)))
        await begun.wait()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        del asked
        await asyncio.sleep(0.01)  # until the loop itself has nothing to do with it any more
        gc.collect()
        awaited = held[0]()
        assert awaited is not None
        awaited.set_result(None)
        del awaited
        while not ended:
            await asyncio.sleep(0)

    asyncio.run(leave())
    assert ended == ["done"]


def test_a_job_that_has_ended_is_held_no_more() -> None:
    jobs = KeptTasks()
    tasks: list[weakref.ref[asyncio.Task[int] | None]] = []

    async def job(result: int) -> int:
        task = asyncio.current_task()
        tasks.append(weakref.ref(task))
        if not result:
            raise LookupError
        return result

    async def run_two() -> None:
        assert await jobs.run(job(7)) == 7
        with pytest.raises(LookupError):
            await jobs.run(job(0))

    asyncio.run(run_two())
    gc.collect()
    assert [task() for task in tasks] == [None, None]


def test_of_too_many_sessions_the_oldest_is_forgotten() -> None:
    users = SessionUsers(sessions_max=2)
    for secret, user_id in (("a", 1), ("b", 1), ("a", 1), ("c", 2)):
        users.keep(secret, user_id)
    assert [users.find(secret) for secret in "abc"] == [None, 1, 2]
