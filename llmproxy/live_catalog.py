"""Owns the catalog in the server's memory: the file in force, with the operator's entries over it.

A file that is replaced or edited is read again a moment later. One that cannot be used changes
nothing: the last good one stays, and the log says so. Must not price anything.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from llmproxy.catalog import Catalog
from llmproxy.catalog_overrides import NO_OVERRIDES, Overrides, with_overrides
from llmproxy.catalog_parser import Document, load_catalog, load_document
from llmproxy.catalog_warnings import name_warnings
from llmproxy.errors import CatalogError

WATCH_INTERVAL_S = 0.2

_log = logging.getLogger("llmproxy.catalog")


class _Seen(NamedTuple):
    """Which file was read, and what would be different about another one."""

    path: Path | None
    identity: tuple[int, int, int] | None


class LiveCatalog:
    """The catalog that requests are priced by; `current` is replaced as a whole."""

    def __init__(self, find_file: Callable[[], Path | None]) -> None:
        """Read the file; `find_file` says which one counts, None for the packaged one.

        Raises:
            CatalogError: it cannot be used. There is no price to begin with then.
        """
        self._find_file = find_file
        try:
            self._seen = self._look()
        except OSError as error:
            msg = f"The model catalog cannot be looked for: {error}."
            raise CatalogError(msg) from error
        self._file = load_catalog(self._seen.path)
        self._overrides = NO_OVERRIDES
        self.current = self._file
        self._reading = asyncio.Lock()
        self._kept: tuple[_Seen, Document] | None = None

    @property
    def file(self) -> Catalog:
        """The catalog file that counts, without the operator's own entries."""
        return self._file

    @property
    def path(self) -> Path | None:
        """Where that file is; None for the one that came with the program."""
        return self._seen.path

    async def read_document(self) -> Document:
        """Return the file as it is now, with its entries as they are written.

        A thread reads it, for one at a time, and again only once it is another.

        Raises:
            CatalogError: it cannot be used as it is now.
        """
        async with self._reading:
            return await asyncio.to_thread(self._read_document)

    def _read_document(self) -> Document:
        try:
            seen = _identify(self._seen.path)
        except OSError as error:
            msg = f"The model catalog cannot be looked for: {error}."
            raise CatalogError(msg) from error
        if self._kept is None or self._kept[0] != seen:
            self._kept = (seen, load_document(seen.path))
        return self._kept[1]

    def publish(self, overrides: Overrides) -> None:
        """Take the operator's own entries."""
        if overrides == self._overrides:
            return
        for (provider, model_id), why in overrides.broken.items():
            if self._overrides.broken.get((provider, model_id)) != why:
                _log.error("%s/%s has no price: your own entry: %s", provider, model_id, why)
        self._overrides = overrides
        self._merge()

    async def watch(self) -> None:
        """Look at the file a few times a second, for as long as the server runs."""
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            await self._look_again()

    async def _look_again(self) -> None:
        try:
            seen = self._look()
        except OSError:  # its directory cannot be looked into now
            return
        if seen == self._seen:
            return
        self._seen = seen
        try:
            # In a thread: a long file must not keep requests waiting.
            self._file = await asyncio.to_thread(load_catalog, seen.path)
        except CatalogError as error:
            _log.error("the catalog of %s stays in force: %s", self._file.updated, error)
            return
        self._merge()
        count = len(self.current.models())
        _log.info("the model catalog is of %s now, %d models", self._file.updated, count)

    def _merge(self) -> None:
        """Put the file with the own entries over it in force; log what is to be known of it."""
        known = set(name_warnings(self.current))
        self.current = with_overrides(self._file, self._overrides)
        for warning in name_warnings(self.current):
            if warning not in known:
                _log.warning("%s. %s", warning.message, warning.advice)

    def _look(self) -> _Seen:
        """Return what tells one version of the file from another, without reading it."""
        return _identify(self._find_file())


def _identify(path: Path | None) -> _Seen:
    if path is None:
        return _Seen(None, None)
    try:
        found = path.stat()
    except FileNotFoundError:
        return _Seen(path, None)
    return _Seen(path, (found.st_ino, found.st_size, found.st_mtime_ns))
