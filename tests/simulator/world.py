"""One seed from its beginning to its end: the lives of a process, one after the other.

The database of each world is a copy of one that was made and migrated once.
"""

import contextlib
import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from typing_extensions import override

from llmproxy import key_pool
from llmproxy.errors import DatabaseError
from llmproxy.storage.database import AdminDatabase, DatabaseFiles
from llmproxy.vault import Vault, new_master_key
from tests.simulator.checks import Checks
from tests.simulator.life import BadJobError, Process
from tests.simulator.loop import ProcessCrashedError, StuckError, VirtualLoop
from tests.simulator.office import CATALOG, Office
from tests.simulator.plan import Life, Plan, draw
from tests.simulator.stand_ins import MemorySpill, SimulatedClock

BEGIN_S = 1000.0
PAUSE_S = 10.0
"""Between two lives."""
MEMORY = Path("/dev/shm")


class Home:
    """A folder with the database that all worlds begin with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.catalog_path = folder / "catalog.json"
        self.catalog_path.write_bytes(msgspec.json.encode(CATALOG))
        self.vault = Vault(new_master_key())
        self._template = folder / "template" / "llmproxy.db"
        database = AdminDatabase(self._template)
        with database.write() as tx:
            for provider in ("openai", "anthropic"):
                for number in (1, 2):
                    key_pool.add_provider_key(
                        tx,
                        provider,
                        f"sk-secret-of-{provider}-{number}",
                        name=None,
                        vault=self.vault,
                        actor="boss",
                        now_ms=0,
                    )
        database.close()

    def new_database(self) -> Path:
        """Return the path of a fresh copy; there is one at a time."""
        folder = self.folder / "data"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        path = folder / "llmproxy.db"
        shutil.copy(self._template, path)
        path.chmod(0o600)
        return path


@contextlib.contextmanager
def simulated_home() -> Iterator[Home]:
    """Give a folder for worlds, in memory where the system has such a place."""
    parent = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="llmproxy-simulator-", dir=parent) as folder:
        yield Home(Path(folder))


@dataclass
class Result:
    """What became of a seed."""

    seed: int
    violations: list[str]
    trace: list[str]
    steps: int
    requests: int
    tally: Counter[str]


class World:
    """All that a seed makes, and what its lives share."""

    def __init__(self, home: Home, plan: Plan) -> None:
        self.plan = plan
        self.trace: list[tuple[float, str]] = []
        self.vault = home.vault
        self.catalog_path = home.catalog_path
        self.files = DatabaseFiles(home.new_database())
        self.spill = MemorySpill(self.files.spill)
        self.loop = VirtualLoop(BEGIN_S)
        self.clock = SimulatedClock(self._now_s)
        self.checks = Checks(self.files.path, self.note)
        self.office = Office(self.files.path, self.clock.now_ms, self.checks.wallets)
        self.lives_begun = 0
        self.steps = 0
        self._lenient = False
        self._processes: list[tuple[Process, bool]] = []

    def _now_s(self) -> float:
        return self.loop.time()  # of the loop of this life

    def note(self, text: str) -> None:
        """Take note of something that happens, for the trace."""
        self.trace.append((self.loop.time(), text))

    def run(self) -> Result:
        """Live all lives and look at the books."""
        requests = 0
        try:
            with _logs_noted(self):
                self.office.open_accounts(self.plan.people)
                for life in self.plan.lives:
                    requests += self._live(life)
                self._live(Life([]))  # the last start ends what a crash has left
                self.checks.nothing_is_open("at the end")
                self.checks.the_books(self.office)
                for process, died in self._processes:
                    for visit in process.visits.values():
                        self.checks.the_visit(
                            visit, self.office, died=died, is_calm=process.is_calm
                        )
        finally:
            self.office.close()
            self.checks.close()
        return Result(
            self.plan.seed,
            self.checks.violations,
            [f"{at_s - BEGIN_S:10.4f}  {text}" for at_s, text in self.trace],
            self.steps,
            requests,
            self.checks.tally,
        )

    def _live(self, life: Life) -> int:
        self.lives_begun += 1
        self._lenient = bool(life.disk_faults) or any(act.takes_s for act in life.acts)
        self.loop.close()
        self.loop = loop = VirtualLoop(self.loop.time() + PAUSE_S, life.crash_at_step)
        loop.set_exception_handler(lambda _loop, context: self._unhandled(context))
        self.note(f"life {self.lives_begun} begins")
        process = Process(self, life)
        has_crashed = False
        try:
            loop.run_until_complete(process.run())
        except ProcessCrashedError:
            has_crashed = True
            self.note(f"the process dies at step {loop.steps}")
            loop.drop_everything()
            process.writer._connection.close()
        except StuckError as error:
            self.checks.fail(str(error))
            loop.drop_everything()
            has_crashed = True
            process.writer._connection.close()
        else:
            loop.close()
            process.writer.close()
            # What was kept ends its holds at the next start.
            if not process.is_dead and not process.writer.kept:
                self.checks.nothing_is_open("after a stop")
        self.steps += loop.steps
        self.office.give_up()
        self.checks.tally["crashes" if has_crashed else "stops"] += 1
        self._processes.append((process, has_crashed or process.is_dead))
        return len(process.visits)

    def _unhandled(self, context: dict[str, Any]) -> None:
        """Look at what asyncio complains of; that a failed ledger fails again is no news."""
        self.note(f"loop: {context}")
        if not (self._lenient and isinstance(context.get("exception"), DatabaseError)):
            self.checks.fail(f"loop: {context}")

    def log(self, record: logging.LogRecord) -> None:
        """Look at what the program logs: an error that nobody has made is one of its own."""
        text = record.getMessage()
        self.note(f"log: {text}")
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, BadJobError) or record.levelno < logging.ERROR:
            return
        if error is not None or not self._lenient:
            self.checks.fail(f"the log says: {text}: {error!r}")


class _Noted(logging.Handler):
    def __init__(self, world: World) -> None:
        super().__init__(logging.WARNING)
        self._world = world

    @override
    def emit(self, record: logging.LogRecord) -> None:
        self._world.log(record)


@contextlib.contextmanager
def _logs_noted(world: World) -> Iterator[None]:
    """Hand what the program logs to the world, and to nobody else."""
    logger, handler = logging.getLogger("llmproxy"), _Noted(world)
    before = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before


def run_seed(home: Home, seed: int) -> Result:
    """Run the world of a seed."""
    return World(home, draw(seed)).run()
