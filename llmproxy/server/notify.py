"""Owns what the service manager is told (sd_notify(3)): the server is ready, the server stops."""

import logging
import socket

READY = "READY=1"
STOPPING = "STOPPING=1"

_log = logging.getLogger("llmproxy.server")


def notify(address: str | None, state: str) -> None:
    """Tell the service manager at `address` (NOTIFY_SOCKET); without one nobody is told."""
    if not address:
        return
    name = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.connect(name)
            channel.sendall(state.encode())
    except OSError as error:
        _log.warning("the service manager could not be told %s: %s", state, error)
