"""A proxy that leads nowhere: what a program would send to the internet ends here, and is told."""

import socket
import threading
from typing import Self


class Trap:
    """Listens on loopback as an HTTP proxy; `asked` has the first line of what came."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._listener.close()
        self._thread.join()

    def environ(self) -> dict[str, str]:
        """The variables that lead a program's requests here, all but those to loopback."""
        url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        return {each: url for name in names for each in (name, name.lower())} | {
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed: the end
                return
            with connection, connection.makefile("rb") as lines:
                self.asked.append(lines.readline(1000).decode(errors="replace").strip())
