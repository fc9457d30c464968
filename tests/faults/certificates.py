"""Certificates for servers of the matrix: one that the proxy trusts, and such as it must not."""

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

HERE = x509.IPAddress(ip_address("127.0.0.1"))
ELSEWHERE = x509.DNSName("elsewhere.example")
DAY = timedelta(days=1)


class Issued(NamedTuple):
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


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
        secret = issued.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file.write_bytes(secret + issued.certificate.public_bytes(Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context


def issue(
    name: str,
    host: x509.GeneralName | None,
    by: Issued | None,
    *,
    ends: timedelta = DAY,
    is_authority: bool = False,
) -> Issued:
    """Make a certificate for a host, signed by another one or by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 7 * DAY)
        .not_valid_after(now + ends)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    )
    if host is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName([host]), critical=False)
    return Issued(builder.sign(by.key if by else key, SHA256()), key)
