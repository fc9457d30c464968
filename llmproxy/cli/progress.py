"""Owns the progress bars of long work: on stderr, and only where that is a terminal."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmproxy.reports import Request


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar while the block runs; yields `report(done, total)`."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=max(done, total))


def watched(
    pages: "Iterable[list[Request]]", until_ms: int, report: Callable[[int, int], None]
) -> "Iterator[list[Request]]":
    """Pass pages of requests on, and report how much of their time has been gone through."""
    begin_ms: int | None = None
    for page in pages:
        if begin_ms is None:
            begin_ms = page[0].created_at_ms
        yield page
        report(page[-1].created_at_ms - begin_ms, until_ms - begin_ms)
