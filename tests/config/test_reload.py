"""New settings while it runs: what changes, what does not, and that a wrong one changes nothing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from retter.config.reload import CHANGEABLE, reloaded
from retter.config.settings import SETTINGS, ConfigError, Settings
from retter.proxy.ticker import TICK_S
from tests.support.harness import FakeProxy, body_of, field, get, reply, status_of


def apply(proxy: FakeProxy, **changes: Any) -> None:
    """Apply new settings as SIGHUP does: those that need a restart are refused here."""
    present = proxy.services.settings
    new = reloaded(present, replace(present, **changes))
    assert not new.restart
    proxy.proxy.apply(new.settings)


def test_what_may_change_are_settings() -> None:
    assert {setting.field for setting in SETTINGS} > CHANGEABLE
    assert not CHANGEABLE & {"listen", "upstream", "config", "event_loop", "store_policy", "admin"}


def test_what_cannot_change_is_named_and_stays() -> None:
    present = Settings(upstream=":1", keep_alive_s=5)
    wanted = Settings(
        upstream=":2", listen=(":80", ":81"), drain_s=3, headers=False, admin_token="x" * 20
    )
    new = reloaded(present, wanted)
    assert (new.settings.upstream, new.settings.listen) == (":1", (":8089",))
    assert (new.settings.drain_s, new.settings.keep_alive_s) == (3, 75)
    assert new.changed == {"--drain": "3s", "--keep-alive": "75s", "--no-headers": "false"}
    assert new.restart == {
        "--listen": ":80 :81",
        "--upstream": ":2",
        "--admin-token": "(hidden)",
    }
    assert reloaded(present, present) == (present, {}, {})


def test_limits_of_requests_change_between_two_of_one_connection() -> None:
    proxy = FakeProxy()
    client = proxy.client(get("/?" + "x" * 1000))
    proxy.upstream.sends(reply())
    assert status_of(client.received()) == 200
    apply(proxy, target_bytes_max=500)
    client.sends(get("/?" + "x" * 1000))  # the same bytes, which were remembered
    assert status_of(client.received()) == 414


def test_who_is_trusted_changes_for_new_connections() -> None:
    proxy = FakeProxy()
    apply(proxy, trusted_proxies=("192.0.2.7",))
    proxy.client(get(headers={"X-Forwarded-For": "203.0.113.9"}))
    assert b"X-Forwarded-For: 203.0.113.9, 192.0.2.7\r\n" in proxy.upstream.received()


def test_who_somebody_is_changes_for_heads_that_were_remembered() -> None:
    proxy = FakeProxy(ignore_cookies="seen")
    request = get("/", headers={"Cookie": "seen=1"})
    for _ in range(3):
        client = proxy.client(request)
        proxy.upstream.sends(reply(b"public"))
        assert body_of(client.received()) == b"public"
    apply(proxy, ignore_cookies=(), anonymous_fallback=False)
    client.sends(request)
    proxy.upstream.sends(reply(b"broken", status="500 Oh"))
    assert body_of(client.received()) == b"broken"  # what is everyone's is not this one's


def test_the_store_shrinks_with_the_next_tick() -> None:
    proxy = FakeProxy()
    for number in range(20):
        proxy.client(get(f"/{number}"))
        proxy.upstream.sends(reply(bytes(10_000 + number)))
    assert proxy.services.store.stats()["entries"] == 20
    apply(proxy, store_memory_bytes=100_000, store_object_bytes_max=50_000)
    proxy.advance(TICK_S)
    stats = proxy.services.store.stats()
    assert 0 < stats["entries"] < 10
    assert stats["bytes_used"] <= stats["bytes_max"] == 100_000


def test_answers_change() -> None:
    proxy = FakeProxy()
    client = proxy.client(get())
    proxy.upstream.sends(reply())
    assert field(client.received(), "x-retter") == "backend"
    apply(proxy, headers=False)
    client.sends(get())
    proxy.upstream.sends(reply())
    assert field(client.received(), "x-retter") is None


def test_the_state_is_told_after_a_change_too() -> None:
    proxy = FakeProxy(failure_volume=2)
    client = proxy.client(get("/page"))
    proxy.upstream.sends(reply())
    for number in range(10):
        proxy.client(get(f"/{number}"))
        proxy.upstream.sends(reply(b"", status="500 Oh"))
    apply(proxy, keep_alive_s=10.0)
    client.received()
    client.sends(get("/page"))
    answer = client.received()
    assert (field(answer, "x-retter"), field(answer, "x-circuit")) == ("cache", "OPEN")


def test_the_circuit_follows_its_setting_but_not_another_one() -> None:
    proxy = FakeProxy()
    breaker = proxy.services.breaker
    apply(proxy, circuit="open")
    assert breaker.circuit.mode.value == "open"
    breaker.circuit.set_mode(proxy.loop.now, type(breaker.circuit.mode)("closed"))  # by an operator
    apply(proxy, circuit="open", drain_s=3.0)
    assert breaker.circuit.mode.value == "closed"
    apply(proxy, circuit="auto")
    assert breaker.circuit.mode.value == "auto"


def test_the_breaker_counts_by_the_new_ratio() -> None:
    proxy = FakeProxy(failure_volume=1000)
    apply(proxy, failure_volume=2, failure_ratio=0.1, max_in_flight=1, retry_after_s=60.0)
    for number in range(4):
        proxy.client(get(f"/{number}"))
        proxy.upstream.sends(reply(b"", status="500 Oh"))
    proxy.advance(0.1)
    assert proxy.services.breaker.circuit.state.value == "OPEN"
    client = proxy.client(get("/page"))
    proxy.advance(10)
    answer = client.received()
    if status_of(answer) == 503:
        assert 60 <= int(field(answer, "retry-after") or 0) <= 120


def test_idle_connections_go_by_the_new_time() -> None:
    proxy = FakeProxy(pool_idle_s=1000)
    proxy.client(get())
    proxy.upstream.sends(reply())
    assert proxy.services.pool.idle == 1
    apply(proxy, pool_idle_s=0.1)
    proxy.advance(0.3)
    assert proxy.services.pool.idle == 0


def test_a_log_that_was_moved_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    proxy = FakeProxy(access_log=str(path))
    client = proxy.client(get("/before"))
    proxy.upstream.sends(reply())
    path.rename(tmp_path / "access.log.1")
    apply(proxy)
    client.sends(get("/after"))
    proxy.upstream.sends(reply())
    proxy.advance(1.1)
    assert "/before" in (tmp_path / "access.log.1").read_text()
    assert "/after" not in (tmp_path / "access.log.1").read_text()
    assert "/after" in path.read_text()


@pytest.mark.parametrize(
    "changes",
    [
        {"error_page": "/nowhere/page.html"},
        {"access_log": "/nowhere/access.log"},
        {"error_page": "/"},
    ],
)
def test_a_file_that_cannot_be_used_changes_nothing(changes: dict[str, str]) -> None:
    proxy = FakeProxy()
    settings, answers = proxy.services.settings, proxy.services.answers
    with pytest.raises(ConfigError, match=next(iter(changes))):
        apply(proxy, drain_s=1.0, **changes)
    assert proxy.services.settings is settings
    assert proxy.services.answers is answers


@pytest.mark.parametrize(("before", "after", "kept"), [
    ({"neutral_headers": ("x-tenant",)}, {"neutral_headers": ()}, False),
    ({"neutral_headers": ("x-tenant",)}, {"neutral_headers": ("x-tenant", "x-other")}, True),
    ({"ignore_cookies": ("who",)}, {"ignore_cookies": ("seen",)}, False),
    ({"session_cookies": ("a",)}, {"session_cookies": ("a", "b")}, False),
    ({"session_cookies": ("a", "b")}, {"session_cookies": ("a",)}, True),
    ({"ignore_query": True}, {"ignore_query": False}, False),
    ({"ignore_host": True}, {"ignore_host": False}, False),
    ({"ignore_params": ("page",)}, {"ignore_params": ()}, False),
    ({}, {"ignore_query": True, "ignore_host": True, "ignore_params": ("page",)}, True),
    ({}, {"max_stale_s": 5.0}, True),
])  # fmt: skip
def test_what_was_stored_when_less_told_visitors_apart_is_dropped(
    before: dict[str, Any], after: dict[str, Any], kept: bool
) -> None:
    proxy = FakeProxy(**before)
    proxy.client(get("/"))
    proxy.upstream.sends(reply())
    apply(proxy, **after)
    assert proxy.services.store.stats()["entries"] == kept


@pytest.mark.parametrize("queued", [False, True])
def test_nor_is_it_stored_for_a_request_that_came_before(queued: bool) -> None:
    proxy = FakeProxy(neutral_headers="x-tenant", max_in_flight=1, limit_start=1)
    clients = [proxy.client(get("/first"))]
    if queued:
        clients.append(proxy.client(get("/", headers={"X-Tenant": "a"})))
        assert proxy.services.breaker.waiting == 1
    apply(proxy, neutral_headers=())
    for client in clients:
        proxy.upstream.sends(reply(b"of one tenant"))
        assert body_of(client.received()) == b"of one tenant"
    assert proxy.services.store.stats()["entries"] == 0


def test_answers_over_older_connections_are_judged_anew() -> None:
    proxy = FakeProxy(compress="off")
    client = proxy.client(get("/", headers={"Accept-Encoding": "gzip"}))
    html = {"Content-Type": "text/html"}
    proxy.upstream.sends(reply(b"a" * 1000, headers=html))
    assert field(client.received(), "Content-Encoding") is None
    apply(proxy, compress="gzip", head_fields_max=8)
    client.sends(get("/", headers={"Accept-Encoding": "gzip"}))
    assert len(proxy.upstreams) == 1
    proxy.upstream.sends(reply(b"a" * 1000, headers=html))
    assert field(client.received(), "Content-Encoding") == "gzip"
    client.sends(get("/"))
    proxy.upstream.sends(reply(b"b", headers={f"X-{n}": "1" for n in range(9)}))
    assert status_of(client.received()) == 200  # what is stored, not an answer with too many
    assert proxy.services.counters.stored


def test_connections_from_before_a_limit_an_address_count_too() -> None:
    proxy = FakeProxy(connections_per_address_max=0)
    older = [proxy.client() for _ in range(2)]
    apply(proxy, connections_per_address_max=2)
    assert proxy.client().closed
    older[0].resets()
    assert not proxy.client().closed
    assert proxy.client().closed
    older[1].resets()
    assert not proxy.client().closed
    assert proxy.client().closed
