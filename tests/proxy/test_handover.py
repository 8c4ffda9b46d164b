"""Two processes in one: what the old one knows, the new one knows, whatever happens meanwhile."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.admin.controls import Controls
from retter.base.frames import PAYLOAD_BYTES_MAX, PREAMBLE, VERSION, FrameWriter
from retter.breaker import Mode, State
from retter.breaker.states import Signal
from retter.proxy import handover, known_session_frames, state_giver, state_taker
from retter.proxy.follower import _NOTHING, Follower
from retter.proxy.secrets import Secrets
from retter.proxy.state_giver import Giver, _untold, make_memory
from retter.proxy.state_link import Kind, StateLink
from retter.proxy.state_taker import Taker, read_secrets
from retter.store.packed_removals import packed_removals
from retter.store.record import BODY, FORMS, HEAD, NO_STORE, SUPERSEDED
from retter.store.write_behind import Purge, Removals, WriteBehind
from tests.support.disk import Clock
from tests.support.far import FakeServer, shelf_of
from tests.support.harness import FakeLoop, FakeProxy, body_of, get, reply, status_of
from tests.support.tracing import untraced
from tests.support.work import instructions_of

ALICE = {"Cookie": "PHPSESSID=alice-0123456789abcdef"}
BOB = {"Cookie": "PHPSESSID=bob-0123456789abcdefgh"}
LOGOUT = {"Set-Cookie": "PHPSESSID=; Max-Age=0"}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits here for what is due by time."""
    monkeypatch.setattr(handover, "TELL_EVERY_S", 0.001)


class BothLoops(FakeLoop):
    """The clock by hand, and sockets and timers as they are."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio.get_running_loop(), name)

    def call_later(self, *args: Any) -> Any:
        return asyncio.get_running_loop().call_later(*args)


class Pair:
    """An old process and its successor."""

    def __init__(self, before: FakeProxy, **settings: Any) -> None:
        self.before = before
        ours, its = socket.socketpair()
        self.memory = make_memory()
        self.giver = Giver(before.services, StateLink(ours), self.memory)
        link = StateLink(its)
        told = read_secrets(link)
        self.after = FakeProxy(own_loop=before.loop, secrets=told, **settings)
        self.taker = Taker(self.after.services, link, os.dup(self.memory), told)

    async def load(self) -> "Pair":
        async with asyncio.timeout(30):
            await self.taker.load()
        return self

    async def settle(self) -> None:
        """Let each hear what the other has told."""
        heard: list[None] = []

        def hear(end: Giver | Taker, on_frame: Callable[[int, bytes], None]) -> Any:
            def heard_one(kind: int, payload: bytes) -> None:
                on_frame(kind, payload)
                if kind == Kind.REPORT:
                    heard.append(None)

            end.link.on_frame = heard_one
            return on_frame

        usual = [(end, hear(end, end.link.on_frame)) for end in (self.giver, self.taker)]
        async with asyncio.timeout(30):
            while len(heard) < 6:  # noqa: ASYNC110 - two rounds of both at least
                await asyncio.sleep(0.001)
        for end, on_frame in usual:
            end.link.on_frame = on_frame

    def close(self) -> None:
        self.giver.close()
        self.taker.close()


def old(**settings: Any) -> FakeProxy:
    return FakeProxy(own_loop=BothLoops(), **settings)


def in_loop(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


def fetch(
    proxy: FakeProxy,
    path: str,
    body: str = "page",
    who: dict[str, str] | None = None,
    headers: dict[str, str] | None = None,
) -> bytes:
    """Ask for a page that the application answers."""
    proxy.auto_accept = True
    client = proxy.client(get(path, headers=who))
    proxy.upstream.sends(reply(body.encode(), headers=headers))
    return client.received()


def change(proxy: FakeProxy, path: str, who: dict[str, str] | None = None) -> None:
    """Change a page by a POST."""
    proxy.auto_accept = True
    lines = "".join(f"{name}: {value}\r\n" for name, value in (who or {}).items())
    head = f"POST {path} HTTP/1.1\r\nHost: shop.example\r\n{lines}Content-Length: 0\r\n\r\n"
    proxy.client(head.encode())
    proxy.upstream.sends(reply(b"done"))


def shown(proxy: FakeProxy, path: str, who: dict[str, str] | None = None) -> str:
    """Return what is shown while nobody listens where the application was; "" for nothing."""
    proxy.auto_accept = False
    for upstream in proxy.upstreams:
        upstream.resets()
    client = proxy.client(get(path, headers=who))
    if proxy.dialled:
        proxy.refuse()
    answer = client.received()
    return body_of(answer).decode() if status_of(answer) == 200 else ""


def stored(proxy: FakeProxy) -> dict[bytes, Any]:
    """Return all that is stored, as far as it matters to anybody."""
    return {
        key: [(one[HEAD], one[BODY], one[SUPERSEDED], one[NO_STORE]) for one in slot]
        for key, slot in proxy.services.store.shelves.slots.items()
    }


def test_what_is_stored_passes_to_the_successor_and_keeps_its_owners() -> None:
    async def main() -> None:
        before = old(connect_hold_s=0.0)
        fetch(before, "/", "for all")
        fetch(before, "/mine", "alice's", ALICE)
        fetch(before, "/secret", "memory only", headers={"Cache-Control": "no-store"})
        pair = await Pair(before, connect_hold_s=0.0).load()
        after = pair.after
        assert (pair.taker.trouble, pair.taker.entries) == ("", 3)
        assert stored(after) == stored(before)
        assert shown(after, "/") == "for all"
        assert shown(after, "/mine", ALICE) == "alice's"
        assert shown(after, "/mine", BOB) == shown(after, "/mine") == ""
        pair.close()

    in_loop(main)


def test_equal_bodies_are_one_there_too() -> None:
    async def main() -> None:
        before = old()
        for number in range(5):
            fetch(before, f"/{number}", "x" * 300_000)
        pair = await Pair(before).load()
        assert pair.after.services.store.stats()["bodies"] == 1
        assert stored(pair.after) == stored(before)
        pair.close()

    in_loop(main)


def test_responses_can_be_compressed_there_as_here() -> None:
    async def main() -> None:
        before = old()
        fetch(before, "/", "page" * 1000, headers={"Content-Type": "text/html"})
        fetch(before, "/picture", "page" * 1000, headers={"Content-Type": "image/png"})
        pair = await Pair(before).load()
        slots = pair.after.services.store.shelves.slots.values()
        assert [slot[0][FORMS] for slot in slots] == [(), None]
        pair.close()

    in_loop(main)


def test_the_successor_knows_the_sessions() -> None:
    async def main() -> None:
        before = old(rolling_cookies=("seal",))
        fetch(before, "/in", headers={"Set-Cookie": "PHPSESSID=alice-0123456789abcdef"})
        fetch(before, "/mine", "alice's", ALICE)
        fetch(before, "/roll", headers={"Set-Cookie": "seal=0123456789abcdef-first"})
        roll = {"Cookie": "seal=0123456789abcdef-first"}
        fetch(before, "/mine", "sealed", roll)
        pair = await Pair(before, rolling_cookies=("seal",), connect_hold_s=0.0).load()
        rules, known = (one.services.owner_rules for one in (before, pair.after))
        assert known.seen.names == rules.seen.names != set()
        assert known.seen.known.all_marks() == rules.seen.known.all_marks() != []
        assert known.lineages.all_values() == rules.lineages.all_values() != []
        assert shown(pair.after, "/mine", roll) == "sealed"
        pair.close()

    in_loop(main)


def test_the_circuit_goes_on_where_it_is() -> None:
    async def main() -> None:
        before = old()
        circuit = before.services.breaker.circuit
        circuit.fire(before.loop.now, Signal.FAILING)
        circuit.pause(before.loop.now, before.loop.now + 60)
        pair = await Pair(before).load()
        after = pair.after.services.breaker.circuit
        assert (after.state, after.paused_until) == (State.OPEN, before.loop.now + 60)
        assert pair.after.services.answers._state is State.OPEN
        pair.close()

    in_loop(main)


def test_an_order_that_ends_by_itself_does_so_in_the_successor() -> None:
    async def main() -> None:
        before = old()
        now = before.loop.now
        Controls(before.services).force(Mode.OPEN, 60.0, now)
        pair = await Pair(before).load()
        controls = Controls(pair.after.services)
        assert controls.forced(now) == ("open", 60)
        controls.sweep(now + 61)
        assert controls.forced(now + 61) == (None, None)
        pair.close()

    in_loop(main)


def test_the_successor_tells_other_boxes_what_the_old_one_could_not() -> None:
    async def main() -> None:
        clock = Clock()
        server = FakeServer(clock)
        server.trouble = "away"
        before = old(far=shelf_of(server, clock, "old"))
        before.services.store.invalidation.drop_owner(b"o" * 16, before.loop.now, (7,))
        before.services.store.invalidation.purge(url=b"shop.example/", now=before.loop.now)
        pair = await Pair(before, far=shelf_of(server, clock, "new")).load()
        far = pair.after.services.far
        assert far is not None
        assert far.outbox.untold.owners == {b"o" * 16} and far.outbox.untold.marks == {7}
        assert far.outbox.untold.purges == [Purge(b"shop.example/", None, None)]
        pair.close()

    in_loop(main)


@pytest.mark.parametrize("kind", ["keys", "purges", "superseded"])
def test_too_much_for_the_successor_to_tell_becomes_more_and_not_less(kind: str) -> None:
    clock = Clock()
    far = shelf_of(FakeServer(clock), clock, "old")
    services: Any = SimpleNamespace(far=far)
    long = [b"*shop.example/" + b"%d" % number * 3000 for number in range(10, 250)]
    assert sum(map(len, long)) > PAYLOAD_BYTES_MAX
    purges = [Purge(url, None, None) for url in long]
    for removals in {
        "keys": [Removals(keys={key}) for key in long],
        "purges": [Removals(purges=[purge]) for purge in purges],
        "superseded": [Removals(superseded={key}) for key in long],
    }[kind]:
        far.removed(removals)
    told = _untold(services)
    assert len(told) < PAYLOAD_BYTES_MAX
    everything = packed_removals(Removals(everything=True)).decode()
    assert told == ("" if kind == "superseded" else everything)


def test_of_another_application_nothing_is_assumed() -> None:
    async def main() -> None:
        before = old()
        before.services.breaker.circuit.fire(before.loop.now, Signal.FAILING)
        pair = await Pair(before, upstream="127.0.0.1:8081").load()
        assert pair.after.services.breaker.circuit.state is State.CLOSED
        pair.close()

    in_loop(main)


def test_what_was_stored_by_rules_that_told_fewer_apart_is_left() -> None:
    async def main() -> None:
        before = old(ignore_query=True)
        fetch(before, "/?user=alice", "alice's")
        pair = await Pair(before, ignore_query=False).load()
        assert stored(pair.after) == {}
        fetch(before, "/?user=bob", "bob's")
        await pair.settle()
        assert stored(pair.after) == {}
        pair.close()

    in_loop(main)


Step = Callable[[Pair], Awaitable[None]]


def both_hear(first: bool) -> Callable[[Pair], tuple[FakeProxy, FakeProxy]]:
    """Return who does something, and who is to know."""
    return lambda pair: (pair.before, pair.after) if first else (pair.after, pair.before)


@pytest.mark.parametrize("first", [True, False], ids=["in the old one", "in the new one"])
def test_what_is_taken_back_in_one_is_not_shown_by_the_other(first: bool) -> None:
    async def main() -> None:
        before = old(connect_hold_s=0.0)
        for path in ("/changed", "/purged", "/gone"):
            fetch(before, path)
        fetch(before, "/in", headers={"Set-Cookie": ALICE["Cookie"]})
        fetch(before, "/mine", "alice's", ALICE)
        pair = await Pair(before, connect_hold_s=0.0).load()
        one, other = both_hear(first)(pair)
        assert len(stored(other)) == 5
        change(one, "/changed")
        one.services.store.invalidation.purge(prefix=b"/purged", now=one.loop.now)
        fetch(one, "/out", who=ALICE, headers=LOGOUT)
        await pair.settle()
        assert shown(other, "/mine", ALICE) == ""
        superseded = [
            slot[0][2] for key, slot in stored(other).items() if key.endswith(b"/changed")
        ]
        assert superseded == [True]
        assert not [key for key in stored(other) if b"/purged" in key]
        one.services.store.invalidation.empty(one.loop.now)
        await pair.settle()
        assert stored(other) == {}
        pair.close()

    in_loop(main)


def test_a_page_taken_back_by_the_application_is_gone_in_both() -> None:
    async def main() -> None:
        before = old(connect_hold_s=0.0)
        fetch(before, "/page")
        pair = await Pair(before, connect_hold_s=0.0).load()
        before.loop.now += 60  # so long nobody else was given it
        client = before.client(get("/page"))
        before.upstream.sends(reply(b"gone", status="404 Not Found"))
        assert status_of(client.received()) == 404
        await pair.settle()
        assert shown(pair.after, "/page") == ""
        pair.close()

    in_loop(main)


def test_what_the_old_one_stores_while_it_drains_is_there() -> None:
    async def main() -> None:
        before = old(connect_hold_s=0.0)
        pair = await Pair(before, connect_hold_s=0.0).load()
        fetch(before, "/late", "late page")
        await pair.settle()
        assert shown(pair.after, "/late") == "late page"
        fetch(before, "/last", "last page")
        pair.giver.finish()
        async with asyncio.timeout(30):
            while pair.taker.link.is_open:  # noqa: ASYNC110 - its end has no event
                await asyncio.sleep(0.001)
        assert shown(pair.after, "/last") == "last page"

    in_loop(main)


def test_what_was_taken_back_here_is_not_brought_back_by_the_other() -> None:
    """The old one answers a request of before the logout, and has not heard of that."""

    async def main() -> None:
        before = old(connect_hold_s=0.0)
        fetch(before, "/in", headers={"Set-Cookie": ALICE["Cookie"]})
        fetch(before, "/one", "alice's", ALICE)
        pair = await Pair(before, connect_hold_s=0.0).load()
        pair.giver.link.stop_reading()
        fetch(pair.after, "/out", who=ALICE, headers=LOGOUT)
        fetch(before, "/mine", "alice's", ALICE)
        pair.giver.finish()
        async with asyncio.timeout(30):
            while pair.taker.link.is_open:  # noqa: ASYNC110 - its end has no event
                await asyncio.sleep(0.001)
        assert shown(pair.after, "/mine", ALICE) == ""

    in_loop(main)


def test_a_newer_page_is_not_replaced_by_an_older_one() -> None:
    async def main() -> None:
        before = old(connect_hold_s=0.0)
        fetch(before, "/", "first")
        pair = await Pair(before, connect_hold_s=0.0).load()
        fetch(before, "/", "second")
        before.loop.now += 1
        fetch(pair.after, "/", "third")
        await pair.settle()
        assert shown(pair.after, "/") == "third"
        pair.close()

    in_loop(main)


def test_a_page_that_is_stored_again_while_it_is_told_is_not_lost() -> None:
    async def main() -> None:
        before = old()
        fetch(before, "/large", "page" * 200_000)
        pair = Pair(before)
        sent = pair.giver._send
        stored_again = 0

        def send(kind: Kind, payload: bytes) -> None:
            nonlocal stored_again
            sent(kind, payload)
            if kind == Kind.PIECE and stored_again < 3:
                stored_again += 1
                before.loop.now += 0.01
                body = "page" * 200_000 if stored_again < 3 else "another"
                fetch(before, "/large", body)

        pair.giver._send = send  # type: ignore[method-assign]
        await pair.load()
        await pair.settle()
        assert stored_again == 3
        assert stored(pair.after) == stored(before)
        pair.close()

    in_loop(main)


def test_the_successors_disk_is_told_what_the_old_one_was_not() -> None:
    """The old process writes no more from the moment that its successor is started."""

    async def main() -> None:
        before = old()
        fetch(before, "/early")
        pair = Pair(before)
        fetch(before, "/late")
        fetch(before, "/secret", headers={"Cache-Control": "no-store"})
        behind = WriteBehind(_NOTHING)
        pair.after.services.store.put_behind(behind)
        await pair.load()
        batch = behind.take(before.loop.now)
        assert batch is not None
        assert [key[-5:] for key, waits in batch.slots.items() if waits.slot] == [b"/late"]
        assert len(stored(pair.after)) == 3
        pair.close()

    in_loop(main)


OPERATIONS = [
    "store",
    "store same",
    "store large",
    "own",
    "change",
    "purge",
    "logout",
    "empty",
    "wait",
    "wait",
]


@untraced
@given(
    steps=st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 3)), max_size=25),
    begun=st.lists(st.integers(0, 3), max_size=4),
)
def test_whatever_happens_during_the_handover_both_have_the_same(
    steps: list[tuple[str, int]], begun: list[int]
) -> None:
    """Each step of the snapshot is followed by whatever may happen."""

    async def main() -> None:
        before = old(connect_hold_s=0.0)
        for number in begun:
            fetch(before, f"/{number}", f"begun {number}" * 60_000)
            fetch(before, f"/own/{number}", "alice's", ALICE)
        pair = Pair(before, connect_hold_s=0.0)
        loading = asyncio.ensure_future(pair.load())
        for count, (operation, number) in enumerate(steps):
            before.loop.now += 0.01
            await do(before, operation, number, count)
        await loading
        await pair.settle()
        assert pair.taker.trouble == ""
        assert stored(pair.after) == stored(before)
        pair.close()

    async def do(proxy: FakeProxy, operation: str, number: int, count: int) -> None:
        if operation == "store":
            fetch(proxy, f"/{number}", f"page {count}")
        elif operation == "store same":
            fetch(proxy, f"/{number}", "always the same")
        elif operation == "store large":
            fetch(proxy, f"/{number}", f"page {count}" * 60_000)
        elif operation == "own":
            fetch(proxy, f"/own/{number}", f"own {count}", ALICE)
        elif operation == "change":
            change(proxy, f"/{number}")
        elif operation == "purge":
            proxy.services.store.invalidation.purge(prefix=b"/%d" % number, now=proxy.loop.now)
        elif operation == "logout":
            fetch(proxy, "/out", who=ALICE, headers=LOGOUT)
        elif operation == "empty":
            proxy.services.store.invalidation.empty(proxy.loop.now)
        else:
            await asyncio.sleep(0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state_giver, "SLICE_S", 0.0)
        patch.setattr(state_giver, "REST_S", 0.0)
        asyncio.run(main())


# -- what cannot be read ---------------------------------------------------------------------------


def memory_with(data: bytes, *, sealed: bool = True) -> int:
    import fcntl

    fd = make_memory()
    os.write(fd, data)
    if sealed:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, 15)
    return fd


def snapshot(*frames: tuple[Kind, bytes]) -> bytes:
    writer = FrameWriter()
    return PREAMBLE + b"".join([writer.frame(kind, payload) for kind, payload in frames])


END = (Kind.END, bytes(8))


@pytest.mark.parametrize(
    ("data", "sealed", "why"),
    [
        (b"", True, "no memory"),
        (b"something else", True, "another program"),
        (PREAMBLE[:-2] + (VERSION + 1).to_bytes(2, "little") + b"x" * 20, True, "has version"),
        (snapshot(), True, "cut off"),
        (snapshot((Kind.SESSIONS, b"{}")), True, "cut off"),
        (snapshot((Kind.SESSIONS, b"{}"), END), True, "frames are missing"),
        (snapshot(END, (Kind.SESSIONS, b"{}")), True, "behind its end"),
        (snapshot(END)[:-1] + b"x", True, "checksum"),
        (snapshot(END), False, "not sealed"),
    ],
)
def test_a_file_that_is_none_is_left_and_the_circuit_goes_on(
    data: bytes, sealed: bool, why: str
) -> None:
    async def main() -> None:
        before = old()
        fetch(before, "/")
        before.services.breaker.circuit.set_mode(before.loop.now, Mode.OPEN)
        pair = Pair(before)
        os.close(pair.taker._memory_fd)
        pair.taker._memory_fd = memory_with(data, sealed=sealed)
        told = pair.giver.link.send

        def other_length(kind: Kind, payload: bytes = b"") -> None:
            told(kind, len(data).to_bytes(8, "little") if kind == Kind.SEALED else payload)

        pair.giver.link.send = other_length  # type: ignore[method-assign]
        await pair.load()
        assert why in pair.taker.trouble
        assert stored(pair.after) == {}
        assert pair.after.services.breaker.circuit.mode is Mode.OPEN
        pair.close()

    in_loop(main)


@given(where=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255))
def test_a_file_with_an_octet_flipped_is_not_read(where: float, bits: int) -> None:
    async def main() -> None:
        before = old()
        fetch(before, "/mine", "alice's", ALICE)
        pair = Pair(before)
        close = pair.giver._close_memory
        flipped = 0

        def copied() -> None:
            nonlocal flipped
            octets = bytearray(os.pread(pair.memory, 1 << 20, 0))
            octets[int(where * len(octets))] ^= bits
            os.close(pair.taker._memory_fd)
            pair.taker._memory_fd = memory_with(bytes(octets))
            flipped += 1
            close()

        pair.giver._close_memory = copied  # type: ignore[method-assign]
        await pair.load()
        pair.giver._close_memory = close  # type: ignore[method-assign]
        assert flipped == 1
        assert pair.taker.trouble
        assert stored(pair.after) == {}
        pair.close()

    asyncio.run(main())


@pytest.mark.parametrize("full", [False, True])
def test_without_memory_for_a_file_the_circuit_goes_on(
    full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        before = old()
        fetch(before, "/")
        before.services.breaker.circuit.set_mode(before.loop.now, Mode.OPEN)
        if full:
            read_only = os.open("/dev/null", os.O_RDONLY)  # it cannot be written
            monkeypatch.setattr("tests.proxy.test_handover.make_memory", lambda: read_only)
            pair = Pair(before)
        else:
            pair = Pair(before)
            pair.giver._close_memory()
        await pair.load()
        assert pair.taker.trouble == "there was no memory for it"
        assert pair.after.services.breaker.circuit.mode is Mode.OPEN
        fetch(before, "/late")
        pair.close()

    in_loop(main)


def test_nobody_waits_for_ever_for_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_taker, "STATE_S", 0.0)

    async def main() -> None:
        pair = await Pair(old()).load()
        assert pair.taker.trouble == "it does not come in time"
        assert not pair.taker.link.is_open
        pair.giver.close()

    in_loop(main)


@pytest.mark.parametrize(
    "said", [b"[]", b"{", b'{"names": [7]}', b'{"known": [[1]]}', b'{"values": [["00"]]}']
)
def test_sessions_that_are_none_are_refused(said: bytes) -> None:
    proxy = FakeProxy()
    with pytest.raises(ValueError, match=r".+"):
        known_session_frames.know_sessions(proxy.services, said)


@pytest.mark.parametrize("after", [Kind.WANT, Kind.LOADED])
def test_an_old_process_that_dies_meanwhile_leaves_its_successor_to_itself(after: Kind) -> None:
    async def main() -> None:
        before = old()
        fetch(before, "/")
        pair = Pair(before)
        usual = pair.giver.on_frame

        def dies(kind: int, payload: bytes) -> None:
            if kind == after:
                pair.giver.close()
            else:
                usual(kind, payload)

        pair.giver.link.on_frame = dies
        await pair.load()
        assert pair.taker.trouble == "the other process has ended"
        assert not isinstance(pair.after.services.store.behind, Follower)

    in_loop(main)


def test_a_successor_that_ends_leaves_the_old_process_as_it_was() -> None:
    async def main() -> None:
        before = old()
        fetch(before, "/")
        pair = await Pair(before).load()
        assert isinstance(before.services.store.behind, Follower)
        pair.taker.close()
        async with asyncio.timeout(30):
            while pair.giver.link.is_open:  # noqa: ASYNC110 - its end has no event
                await asyncio.sleep(0.001)
        assert before.services.store.behind is None
        assert before.services.breaker.circuit.limit.in_flight == 0
        assert len(stored(before)) == 1

    in_loop(main)


def test_an_old_process_that_stands_still_does_not_count_for_ever() -> None:
    async def main() -> None:
        before = old()
        before.auto_accept = False
        before.client(get("/slow"))
        pair = await Pair(before).load()
        limit = pair.after.services.breaker.circuit.limit
        assert limit.in_flight == 1
        assert pair.giver._timer is not None
        pair.giver._timer.cancel()
        async with asyncio.timeout(30):
            while limit.in_flight:
                before.loop.now += 6  # each time: a report may still be on its way
                await asyncio.sleep(0.001)
        pair.close()
        assert limit.in_flight == 0
        before.proxy.close()

    in_loop(main)


def test_a_place_that_the_old_process_leaves_is_taken_at_once() -> None:
    """The successor's clock stands still here: nobody waits for its next tick."""

    async def main() -> None:
        few: dict[str, Any] = {"max_in_flight": 1, "limit_start": 1}
        before = old(**few)
        before.auto_accept = True
        before.client(get("/slow"))
        pair = await Pair(before, **few).load()
        after = pair.after
        after.auto_accept = True
        client = after.client(get("/next"))
        assert after.services.breaker.waiting == 1
        assert not after.upstreams
        before.upstream.sends(reply(b"page"))
        async with asyncio.timeout(30):
            while not after.upstreams:  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.001)
        after.upstream.sends(reply(b"page"))
        assert status_of(client.received()) == 200
        pair.close()

    in_loop(main)


def test_a_chain_of_successors_hears_it_all() -> None:
    async def main() -> None:
        before = old(connect_hold_s=0.0)
        fetch(before, "/a")
        first = await Pair(before, connect_hold_s=0.0).load()
        second = await Pair(first.after, connect_hold_s=0.0).load()
        fetch(before, "/b", "late")
        change(before, "/a")
        await first.settle()
        await second.settle()
        assert stored(second.after) == stored(before)
        fetch(before, "/in", headers={"Set-Cookie": ALICE["Cookie"]})
        first.close()
        change(second.after, "/b")
        await second.settle()
        assert [slot[0][2] for slot in stored(first.after).values()][:2] == [True, True]
        second.close()
        assert first.after.services.store.behind is None

    in_loop(main)


def test_secrets_that_are_none_are_refused() -> None:
    for octets in (b"", b"[]", b'["00", "00", "00", ""]', b'["zz", "", "", ""]', b"7"):
        ours, its = socket.socketpair()
        with ours, its:
            its.sendall(PREAMBLE + FrameWriter().frame(Kind.SECRETS, octets))
            with pytest.raises(ValueError, match="no secrets"):
                read_secrets(StateLink(ours))
    ours, its = socket.socketpair()
    with ours, its:
        its.sendall(PREAMBLE + FrameWriter().frame(Kind.WANT, b""))
        with pytest.raises(ValueError, match="does not begin"):
            read_secrets(StateLink(ours))
    ours, its = socket.socketpair()
    with ours:
        its.close()
        with pytest.raises(ValueError, match="closed"):
            read_secrets(StateLink(ours))
    assert "secret" not in repr(Secrets()) and repr(Secrets()) == "Secrets()"


# -- the event loop meanwhile ----------------------------------------------------------------------


def test_no_step_of_the_old_process_takes_long() -> None:
    """A millisecond of work between two looks at the clock, however much is stored or known."""

    async def main() -> None:
        before = old(store_memory_bytes=64 << 20)
        for number in range(150):
            fetch(before, f"/{number}", f"page {number} " * 1500)
        fetch(before, "/large", "x" * 900_000)
        known = before.services.owner_rules.seen.known
        for number in range(5000):
            known.know(number, "kept", before.loop.now)
        pair = Pair(before)
        pair.giver._frames = FrameWriter()
        steps, costs = pair.giver._snapshot(), list[int]()

        def step() -> None:
            next(steps, None)
            pair.giver._write()

        while not costs or pair.giver._frames is not None:  # until it is sealed
            costs.append(instructions_of(step))
        assert len(costs) > 150, "else it was no test"
        assert max(costs) <= 30_000, max(costs)
        pair.close()

    in_loop(main)
