"""An event loop in virtual time: it never waits, and nothing outside can make it differ.

Where asyncio would sleep until the next timer, the time is simply that timer's. One turn of the
loop is the simulator's step: a process that crashes does so between two of them.
"""

import asyncio
import contextlib
from asyncio import base_events
from typing import Any

from typing_extensions import override

STEPS_MAX = 50_000


class ProcessCrashedError(BaseException):
    """The simulated process is gone: nothing of it runs any more, no clean-up either."""


class StuckError(Exception):
    """Nothing will ever happen any more, or the world does not come to its end."""


class VirtualLoop(base_events.BaseEventLoop):
    """See the module. `crash_at_step` is the turn before which the process dies, if any."""

    _ready: Any
    _scheduled: Any

    def __init__(self, now_s: float, crash_at_step: int | None = None) -> None:
        super().__init__()
        self._now_s = now_s
        self._crash_at_step = crash_at_step
        self._selector = self  # all that the base class asks of a selector is `select`
        self.steps = 0

    @override
    def time(self) -> float:
        return self._now_s

    def select(self, timeout: float | None) -> tuple[()]:
        """Let the time until the next timer pass; called by the base class once a turn."""
        self.steps += 1
        if self.steps == self._crash_at_step:
            raise ProcessCrashedError
        if timeout is None or self.steps > STEPS_MAX:
            raise StuckError("the simulated world has come to a standstill")
        if timeout > 0:
            self._now_s = self._scheduled[0].when()  # exactly: no rounding may creep in
        return ()

    def _process_events(self, event_list: object) -> None:
        """Do nothing: there are no sockets."""

    def _write_to_self(self) -> None:
        """Do nothing: there are no other threads."""

    def drop_everything(self) -> None:
        """Forget all tasks where they stand, as a process that is killed does.

        Python runs their `finally` blocks when it collects them; here and now these reach nothing
        any more, since this loop runs nothing again.
        """
        self.set_exception_handler(lambda *_: None)
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            coroutine: Any = task.get_coro()
            # One that waits again while it is closed, or is the very one that crashed.
            with contextlib.suppress(RuntimeError, asyncio.CancelledError):
                coroutine.close()
        self._ready.clear()
        self._scheduled.clear()
        self.close()
