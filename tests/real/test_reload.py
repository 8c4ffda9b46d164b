"""SIGHUP: the configuration, the certificates and the log are read or opened again."""

import os
import signal
import ssl
import threading
from pathlib import Path

import pytest

from tests.real.conftest import StartRetter
from tests.real.processes import DEADLINE_S, ApplicationProgram, RetterProgram, eventually
from tests.real.wire import Client, connect, fetch


def reload(proxy: RetterProgram, event: str) -> dict[str, object]:
    """Send SIGHUP and return the record that says what has come of it."""
    before = len(proxy.records())
    proxy.signal(signal.SIGHUP)

    def found() -> dict[str, object] | None:
        return next((one for one in proxy.records()[before:] if one["event"] == event), None)

    record = eventually(found, event)
    assert record is not None
    return record


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "retter.toml"


def test_a_changed_file(
    application: ApplicationProgram, start_retter: StartRetter, file: Path, loop_name: str
) -> None:
    file.write_text("keep-alive = '30s'\n")
    proxy = start_retter(
        "--upstream", application.upstream, "--config", str(file), "--loop", loop_name
    )
    client = Client(proxy.port)
    assert client.get("/page").get("x-retter") == "backend"
    file.write_text("headers = false\nstore_policy = 'rfc9111'\nlog_level = 'warning'\n")
    record = reload(proxy, "needs-restart")
    assert record["settings"] == {"--store-policy": "rfc9111"}
    assert client.get("/page").get("x-retter") is None  # on the same connection

    file.write_text("headers = true\nmax_stale = 'soon'\n")
    record = reload(proxy, "reload-failed")
    assert record["level"] == "error"
    assert str(record["error"]).startswith(f"{file}: max_stale: 'soon' is not a duration; write")
    assert client.get("/page").get("x-retter") is None

    file.write_text("log_level = 'info'\n")
    record = reload(proxy, "reloaded")
    assert record["changed"] == {"--no-headers": "true", "--log-level": "info"}
    assert client.get("/page").get("x-retter") == "backend"
    client.close()


def test_a_pipe_is_read_once(
    application: ApplicationProgram, start_retter: StartRetter, tmp_path: Path
) -> None:
    """A second reading would find it empty, which is a file without settings."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("headers = false\n",))
    writer.start()
    proxy = start_retter("--upstream", application.upstream, "--config", str(pipe))
    writer.join(DEADLINE_S)
    record = reload(proxy, "reload-failed")
    assert record["error"] == (
        f"--config: {pipe}: it is a pipe, which can be read only once; give a file"
    )
    client = Client(proxy.port)
    assert client.get("/page").get("x-retter") is None, "as it was"
    client.close()


def test_the_command_line_stays(
    application: ApplicationProgram, start_retter: StartRetter, file: Path
) -> None:
    file.write_text("")
    proxy = start_retter(
        "--upstream", application.upstream, "--config", str(file), "--request-body-max", "10"
    )
    assert proxy.port
    file.write_text("request-body-max = 1000\n")
    assert reload(proxy, "reloaded")["changed"] == {}
    assert fetch(proxy.port, "POST", "/", body=bytes(100)).status == 413


def test_a_log_is_rotated_without_losing_a_line(
    application: ApplicationProgram, start_retter: StartRetter, tmp_path: Path
) -> None:
    path = tmp_path / "access.log"
    proxy = start_retter("--upstream", application.upstream, "--access-log", str(path))
    client = Client(proxy.port)
    for number in range(5):
        assert client.get(f"/{number}").status == 200
        path.rename(tmp_path / f"access.log.{number}")
        reload(proxy, "reloaded")
    client.close()
    assert proxy.stop() == 0
    for number in range(5):
        lines = (tmp_path / f"access.log.{number}").read_text().splitlines()
        assert [f'"/{number}"' in line for line in lines] == [True]


def test_a_new_certificate(
    application: ApplicationProgram, start_retter: StartRetter, tmp_path: Path, loop_name: str
) -> None:
    trustme = pytest.importorskip("trustme", reason="trustme is not installed")
    authority = trustme.CA()

    def issue(name: str) -> None:
        certificate = authority.issue_cert(name)
        pem = certificate.private_key_and_cert_chain_pem.bytes()
        (tmp_path / "site.pem").write_bytes(pem)

    def name_shown() -> object:
        context = ssl.create_default_context()
        context.check_hostname = False
        authority.configure_trust(context)
        with context.wrap_socket(connect(proxy.port), server_hostname="x") as secure:
            shown = secure.getpeercert()
            assert shown is not None
            return shown["subjectAltName"]

    issue("old.example")
    proxy = start_retter(
        "--upstream",
        application.upstream,
        "--tls-cert",
        str(tmp_path / "site.pem"),
        "--loop",
        loop_name,
        listen="127.0.0.1:0,tls",
    )
    assert name_shown() == (("DNS", "old.example"),)
    (tmp_path / "site.pem").write_text("half a file")
    assert "site.pem" in str(reload(proxy, "reload-failed")["error"])
    assert name_shown() == (("DNS", "old.example"),)
    issue("new.example")
    reload(proxy, "reloaded")
    assert name_shown() == (("DNS", "new.example"),)
