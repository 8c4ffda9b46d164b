"""What is said of an access log that cannot be written: at once, and once."""

from pathlib import Path

from structlog.testing import capture_logs

from retter.process.access_log_watch import AccessLogWatch
from tests.support.admin import admin_of
from tests.support.harness import FakeProxy, get, reply


def answer_one(proxy: FakeProxy) -> None:
    client = proxy.client(get())
    proxy.upstream.sends(reply())
    client.resets()
    proxy.advance(1.0)


def test_a_full_disk_is_told_at_once_and_once_and_its_end(tmp_path: Path) -> None:
    log_file = tmp_path / "access.log"
    log_file.symlink_to("/dev/full")
    proxy = FakeProxy(access_log=str(log_file))
    watch = AccessLogWatch(proxy.services)
    proxy.proxy.ticker.on_second.append(watch.on_second)
    with capture_logs() as records:
        proxy.advance(2.0)
        assert records == [], "nothing was to be written"
        answer_one(proxy)
        proxy.advance(30.0)
        (began,) = records
        assert (began["event"], began["log_level"]) == ("access-log-not-written", "warning")
        assert (began["error"], began["path"]) == ("No space left on device", str(log_file))
        assert proxy.services.counters.access_lines_dropped == 0, "the line waits"

        proxy.services.access_log._writer._put = len  # type: ignore[union-attr]
        proxy.advance(2.0)
    assert [one["event"] for one in records[1:]] == ["access-log-written-again"]
    assert 30 <= records[1]["lasted_s"] <= 33


def test_without_an_access_log_nothing_is_said() -> None:
    proxy = FakeProxy()
    with capture_logs() as records:
        AccessLogWatch(proxy.services).on_second(0.0)
    assert records == []


def test_the_situation_says_so_too() -> None:
    with admin_of(access_log="/dev/full") as admin:
        answer_one(admin.proxy)
        situation = admin.state()["situation"]
    assert situation["row"] == "log lost"
    assert situation["now"] == "The access log is not written: No space left on device."
