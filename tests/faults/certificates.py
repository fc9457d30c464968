"""Certificates for servers of the matrix: one that the proxy trusts, and such as it must not."""

import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.certificates import DAY, HERE, Issued, issue

ELSEWHERE = x509.DNSName("elsewhere.example")


class Authority:
    """Who signs certificates; the proxy trusts it by `SSL_CERT_FILE`."""

    def __init__(self, home: Path) -> None:
        """Make a key and write its certificate into `home`."""
        self._home = home
        self._root = issue("authority", None, None, is_authority=True)
        self.file = home / "authority.pem"
        self.file.write_bytes(self._root.certificate.public_bytes(Encoding.PEM))

    def trusted(self) -> ssl.SSLContext:
        """One that is in order."""
        return self._context(issue("trusted", HERE, self._root))

    def of_another_name(self) -> ssl.SSLContext:
        """One that belongs to another host."""
        return self._context(issue("another", ELSEWHERE, self._root))

    def expired(self) -> ssl.SSLContext:
        """One that ended yesterday."""
        return self._context(issue("expired", HERE, self._root, ends=-DAY))

    def self_signed(self) -> ssl.SSLContext:
        """One that nobody vouches for."""
        return self._context(issue("self-signed", HERE, None))

    def _context(self, issued: Issued) -> ssl.SSLContext:
        file = self._home / "server.pem"
        issued.write(file)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context
