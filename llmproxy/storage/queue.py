"""Owns what the request path sees of the storage writer."""

from asyncio import Future
from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Queue(Protocol):
    """What an exchange needs of the storage writer."""

    def submit(self, function: Callable[..., T], *args: object) -> Future[T]:
        """Queue a write; the future resolves after COMMIT."""

    def enqueue(self, function: Callable[..., object], *args: object) -> None:
        """Queue a write that must happen."""

    def offer(self, function: Callable[..., object], *args: object) -> None:
        """Queue a write that may be left out in times of trouble."""


class Enqueue(Protocol):
    """Queues a write that must happen."""

    def __call__(self, function: Callable[..., object], *args: object) -> None:
        """Queue `function(tx, *args)`."""
