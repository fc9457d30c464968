"""Owns what can go wrong on a page: each becomes a page of its own, see `routes.py`."""

from llmproxy.errors import LlmproxyError


class NotSignedInError(LlmproxyError):
    """Nobody is signed in, or not any more."""


class NotAllowedError(LlmproxyError):
    """Somebody is signed in, but is no operator."""


class MissingError(LlmproxyError):
    """There is no such thing, or it is somebody else's: which, is not told."""


class BusyError(LlmproxyError):
    """More is asked at once than is answered soon."""


class FormError(LlmproxyError):
    """A form has a field that cannot be taken; the message says what to do."""


class StaleFormError(FormError):
    """What a form showed is not so any more: it is shown anew, without what was typed."""
