"""Certificates: read from files, checked when read, selected by the name that a client asks for.

A wrong file is reported by its name before anything listens. The versions and ciphers above TLS 1.2
are the choice of OpenSSL and the system.
"""

import ssl
from typing import Final

from retter.config.files import PEM_BYTES_MAX, read_file
from retter.config.settings import ConfigError, Settings
from retter.config.units import parse_listen, parse_upstream

_SUBJECT_ALT_NAME: Final = bytes.fromhex("0603551d11")  # OBJECT IDENTIFIER 2.5.29.17, in DER
_OCTET_STRING, _SEQUENCE, _DNS_NAME = 0x04, 0x30, 0x82


def _field(der: bytes, start: int) -> tuple[int, int, int]:
    """Return tag, start and end of the content of the DER value that starts there."""
    length, content = der[start + 1], start + 2
    if length & 0x80:
        octets = length & 0x7F
        length = int.from_bytes(der[content : content + octets], "big")
        content += octets
    return der[start], content, content + length


def dns_names(der: bytes) -> list[str]:
    """Return the DNS names that a certificate is for (RFC 5280 section 4.2.1.6), in lower case.

    The standard library returns them for the certificates of peers only.
    """
    place = der.find(_SUBJECT_ALT_NAME)
    if place < 0:
        return []
    names: list[str] = []
    try:
        tag, start, end = _field(der, place + len(_SUBJECT_ALT_NAME))
        if tag != _OCTET_STRING:
            tag, start, end = _field(der, end)  # after "critical", a BOOLEAN
        tag, start, end = _field(der, start)
        while start < end:
            tag, content, start = _field(der, start)
            if tag == _DNS_NAME:
                names.append(der[content:start].decode("ascii").lower())
    except (IndexError, UnicodeDecodeError):
        return []
    return names


def _text(setting: str, path: str, wanted: str, what: str) -> str:
    text = read_file(setting, path, PEM_BYTES_MAX).decode("latin-1")
    if wanted not in text:
        raise ConfigError(f"{setting}: {path}: contains no {what} in PEM")
    return text


class _Passphrase:
    """A callback for the passphrase of a key. Without it, OpenSSL would ask on the terminal."""

    wanted = False

    def __call__(self) -> bytes:
        self.wanted = True
        return b""


def _fault(error: ssl.SSLError, certificate: str, key: str) -> ConfigError:
    if error.reason == "KEY_VALUES_MISMATCH":
        return ConfigError(f"tls_key: {key} does not belong to the certificate {certificate}")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(certificate)
    except ssl.SSLError:
        return ConfigError(f"tls_cert: {certificate}: contains no certificate that can be read")
    reason = (error.reason or str(error)).lower().replace("_", " ")
    return ConfigError(f"tls_key: {key}: cannot be used ({reason})")


def _context(certificate: str, key: str) -> tuple[ssl.SSLContext, list[str]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # RFC 8996: earlier versions must not be used any more.
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    text = _text("tls_cert", certificate, "-----BEGIN CERTIFICATE-----", "certificate")
    _text("tls_key" if key != certificate else "tls_cert", key, "PRIVATE KEY-----", "private key")
    passphrase = _Passphrase()
    try:
        context.load_cert_chain(certificate, key, passphrase)
    except ssl.SSLError as error:
        if passphrase.wanted:
            message = f"tls_key: {key} is encrypted; write it without a passphrase"
            raise ConfigError(message) from None
        raise _fault(error, certificate, key) from None
    first = text[text.index("-----BEGIN CERT") :].partition("-----END CERTIFICATE-----")
    return context, dns_names(ssl.PEM_cert_to_DER_cert(first[0] + first[1]))


class Certificates:
    """The certificates of all TLS listeners, read from their files.

    Attributes:
        context: For connections; it selects by name.

    Raises:
        ConfigError: One of the files is wrong.
    """

    def __init__(self, settings: Settings) -> None:
        if not settings.tls_cert:
            listener = next(text for text in settings.listen if parse_listen(text).tls)
            raise ConfigError(
                f"tls_cert: --listen {listener} needs a certificate: add --tls-cert FILE, "
                "or leave ,tls out"
            )
        keys = settings.tls_key or settings.tls_cert
        if len(keys) != len(settings.tls_cert):
            raise ConfigError(
                f"tls_key: {len(keys)} for {len(settings.tls_cert)} certificates; give one "
                "--tls-key for each --tls-cert, or none if each file holds its key"
            )
        contexts: dict[str, ssl.SSLContext] = {}
        first: ssl.SSLContext | None = None
        for certificate, key in zip(settings.tls_cert, keys, strict=True):
            context, names = _context(certificate, key)
            first = first or context
            for name in names:
                contexts.setdefault(name, context)
        assert first is not None, "there is a certificate"
        first.sni_callback = self._choose
        self._contexts = contexts
        self.context = first

    def _choose(
        self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, first: ssl.SSLContext
    ) -> None:
        """Switch to the certificate of the name asked for (RFC 6066 section 3)."""
        if name:
            connection.context = self.choose(name)

    def choose(self, name: str) -> ssl.SSLContext:
        """Return the context for a name: its own, its wildcard's, or the first."""
        name = name.lower()
        wildcard = "*." + name.partition(".")[2]
        return self._contexts.get(name) or self._contexts.get(wildcard) or self.context


def upstream_context(settings: Settings) -> ssl.SSLContext:
    """Return the TLS context for an application with https.

    Raises:
        ConfigError: `upstream_ca` is wrong.
    """
    path = settings.upstream_ca
    if path:
        _text("upstream_ca", path, "-----BEGIN CERTIFICATE-----", "certificate")
    try:
        # The authorities of the system are read only if they are needed: it takes 20 ms.
        context = ssl.create_default_context(cafile=path or None)
    except ssl.SSLError as error:
        raise ConfigError(f"upstream_ca: {path}: {error.reason or error}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if settings.upstream_insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def check(settings: Settings) -> None:
    """Read all that the settings name. Raises ConfigError."""
    if any(parse_listen(text).tls for text in settings.listen):
        Certificates(settings)
    elif settings.tls_cert:
        raise ConfigError("tls_cert: no listener uses TLS; write --listen :443,tls")
    if parse_upstream(settings.upstream).tls:
        upstream_context(settings)
