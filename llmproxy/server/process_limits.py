"""Owns what the serving process may take of the machine: many open files, and no core dumps."""

import contextlib
import logging
import resource

OPEN_FILES = 65_536
"""As many as the systemd unit allows. A connection takes one, and a streaming answer two."""

_log = logging.getLogger("llmproxy.server")


def set_process_limits() -> None:
    """Raise the limit of open files as far as it may be, and let no crash write memory to disk.

    With the usual 1,024 a thousand clients that only wait would keep everybody else out. A core
    dump would have every provider key in it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # macOS allows less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if soft:  # where the service manager has set none, it may also have forbidden the call
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
        except OSError as error:
            what = (
                "core dumps cannot be switched off (%s): a crash would write provider keys to disk"
            )
            _log.warning(what, error)
