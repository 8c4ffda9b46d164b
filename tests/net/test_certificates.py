"""Reading certificates: what is found in them, and what is said of wrong ones."""

import ssl
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trustme", reason="trustme is not installed (pip install trustme)")

import trustme

from retter.cli import main
from retter.config.settings import ConfigError, Settings
from retter.net.certificates import Certificates, check, dns_names, upstream_context

AUTHORITY = trustme.CA()


def issue(folder: Path, name: str, *names: str) -> tuple[str, str]:
    certificate = AUTHORITY.issue_cert(*names)
    paths = folder / f"{name}.crt", folder / f"{name}.key"
    paths[0].write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    paths[1].write_bytes(certificate.private_key_pem.bytes())
    return str(paths[0]), str(paths[1])


def settings(*pairs: tuple[str, str], **more: Any) -> Settings:
    return Settings(
        upstream=":1",
        listen=(":443,tls",),
        tls_cert=tuple(cert for cert, _ in pairs),
        tls_key=tuple(key for _, key in pairs),
        **more,
    )


def test_names(tmp_path: Path) -> None:
    path, _ = issue(tmp_path, "a", "A.example", "*.b.example", "192.0.2.1", "2001:db8::1")
    der = ssl.PEM_cert_to_DER_cert(
        Path(path).read_text().partition("-----END CERT")[0] + "-----END CERTIFICATE-----"
    )
    assert dns_names(der) == ["a.example", "*.b.example"]
    many = [f"host-{number}.example" for number in range(300)]  # lengths of two octets
    path, _ = issue(tmp_path, "b", *many)
    first = Path(path).read_text().partition("-----END CERT")[0] + "-----END CERTIFICATE-----"
    assert dns_names(ssl.PEM_cert_to_DER_cert(first)) == many


@pytest.mark.parametrize("cut", range(1, 12))
def test_nonsense_has_no_names(cut: int) -> None:
    assert dns_names(b"") == []
    extension = bytes.fromhex("0603551d11040b3009820561") + b".exam"
    assert dns_names(bytes.fromhex("0603551d1104083006820461") + b".ex") == ["a.ex"]
    assert dns_names(extension[:-cut]) == []


def test_a_critical_extension() -> None:
    der = bytes.fromhex("0603551d110101ff04083006820461") + b".ex"
    assert dns_names(der) == ["a.ex"]


def test_choosing(tmp_path: Path) -> None:
    pairs = [issue(tmp_path, "a", "a.example"), issue(tmp_path, "b", "*.b.example", "b.example"),
             issue(tmp_path, "c", "a.example", "x.b.example")]  # fmt: skip
    certificates = Certificates(settings(*pairs))
    first, second, third = (
        certificates.choose(name) for name in ("a.example", "B.example", "x.b.example")
    )
    assert len({first, second, third}) == 3
    assert certificates.choose("y.b.example") is second
    for other in ("x.y.b.example", "other.example", "", "example"):
        assert certificates.choose(other) is first is certificates.context


def test_a_key_in_the_file_of_its_certificate(tmp_path: Path) -> None:
    cert, key = issue(tmp_path, "a", "a.example")
    both = tmp_path / "both.pem"
    both.write_text(Path(key).read_text() + Path(cert).read_text())
    chosen = Settings(upstream=":1", listen=(":443,tls",), tls_cert=(str(both),))
    assert Certificates(chosen).choose("a.example")


def test_what_is_said_of_wrong_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (a, a_key), (b, b_key) = (issue(tmp_path, name, f"{name}.example") for name in "ab")
    nonsense, missing, broken = tmp_path / "nonsense", tmp_path / "missing", tmp_path / "broken"
    nonsense.write_text("hello")
    damaged = tmp_path / "damaged"
    damaged.write_text("-----BEGIN PRIVATE KEY-----\nhello\n-----END PRIVATE KEY-----\n")
    broken.write_text("-----BEGIN CERTIFICATE-----\nhello\n-----END CERTIFICATE-----\n")
    tls = ["--upstream", ":1", "--listen", "127.0.0.1:0,tls"]
    for arguments, message in [
        ([*tls], "--tls-cert: --listen 127.0.0.1:0,tls needs a certificate: add"),
        (["--upstream", ":1", "--tls-cert", a, "--tls-key", a_key], "no listener uses TLS"),
        (
            [*tls, "--tls-cert", a, "--tls-cert", b, "--tls-key", a_key],
            "--tls-key: 1 for 2 certificates",
        ),
        (
            [*tls, "--tls-cert", a, "--tls-key", b_key],
            f"--tls-key: {b_key} does not belong to the certificate {a}",
        ),
        (
            [*tls, "--tls-cert", str(missing), "--tls-key", a_key],
            f"--tls-cert: {missing}: No such file or directory",
        ),
        (
            [*tls, "--tls-cert", a, "--tls-key", str(missing)],
            f"--tls-key: {missing}: No such file or directory",
        ),
        ([*tls, "--tls-cert", a, "--tls-key", str(tmp_path)], f"{tmp_path}: Is a directory"),
        (
            [*tls, "--tls-cert", str(nonsense), "--tls-key", a_key],
            f"--tls-cert: {nonsense}: contains no certificate in PEM",
        ),
        (
            [*tls, "--tls-cert", a, "--tls-key", str(nonsense)],
            f"--tls-key: {nonsense}: contains no private key in PEM",
        ),
        ([*tls, "--tls-cert", a], f"--tls-cert: {a}: contains no private key in PEM"),
        (
            [*tls, "--tls-cert", str(broken), "--tls-key", a_key],
            f"--tls-cert: {broken}: contains no certificate that can be read",
        ),
        (
            [*tls, "--tls-cert", a, "--tls-key", str(damaged)],
            f"--tls-key: {damaged}: cannot be used",
        ),
        (
            ["--upstream", "https://a", "--upstream-ca", str(missing)],
            f"--upstream-ca: {missing}: No such file or directory",
        ),
        (
            ["--upstream", "https://a", "--upstream-ca", str(nonsense)],
            f"--upstream-ca: {nonsense}: contains no certificate",
        ),
        (["--upstream", "https://a", "--upstream-ca", str(broken)], f"--upstream-ca: {broken}"),
    ]:
        assert main([*arguments, "--check-config"]) == main(arguments) == 2, arguments
        told = capsys.readouterr().err
        assert message in told, (arguments, told)
        assert told.count("\n") == 2


def test_a_key_with_a_passphrase_is_not_asked_for(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    cert, key = issue(tmp_path, "a", "a.example")
    plain = serialization.load_pem_private_key(Path(key).read_bytes(), None)
    Path(key).write_bytes(
        plain.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ConfigError, match="is encrypted; write it without a passphrase"):
        Certificates(settings((cert, key)))


def test_towards_the_application(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(str(path))
    context = upstream_context(Settings(upstream="https://a", upstream_ca=str(path)))
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert len(context.get_ca_certs()) == 1
    context = upstream_context(Settings(upstream="https://a", upstream_insecure=True))
    assert context.verify_mode is ssl.CERT_NONE
    check(Settings(upstream="https://a"))
