"""Many requests, one after the other."""

from http.client import HTTPConnection

from tests.proxy.helpers import Site


class Visit:
    """One connection that stays open: five hundred requests are many."""

    def __init__(self, site: Site) -> None:
        self._connection = HTTPConnection("127.0.0.1", site.proxy.port, timeout=20)

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, bytes]:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request(method, path, body, sent)
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def close(self) -> None:
        self._connection.close()
