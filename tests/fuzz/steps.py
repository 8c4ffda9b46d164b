"""Events in the world, one step after the other, as bytes that a fuzzer may change.

An input is a configuration (one octet) and steps: operation, who, what, how it is cut, and for
those that send anything at all a length and the bytes. Every input means something.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from tests.corpus import fidelity
from tests.corpus.misbehaviours import MISBEHAVIOURS, Then
from tests.corpus.requests import CUT_OFF, REFUSED, TAKEN, CutOff, Refused, Taken
from tests.fuzz.stopwatch import longest
from tests.fuzz.world import FarEnd, World

STEPS_MAX = 48
REPEATED_BYTES = 60_000  # what some steps blow their bytes up to: a head may have so many
RUNS_TO_BE_SURE = 4  # that a callback always takes long
LATER = 0x80  # of the operation: closed connections learn of their end only after the next


@dataclass(frozen=True)
class Step:
    operation: int
    who: int = 0
    what: int = 0
    cuts: int = 0
    data: bytes = b""


# -- what proper clients and applications say -------------------------------------------------------
# In requests "~" becomes two octets, in answers "~~" does.

_HOST = b"Host: shop.example\r\n"


def _asks(line: bytes, lines: bytes = b"", body: bytes = b"") -> bytes:
    return line + b" HTTP/1.1\r\n" + _HOST + lines + b"\r\n" + body


PROPER_REQUESTS: tuple[bytes, ...] = (
    _asks(b"GET /~/1"), _asks(b"GET /~/2?q", b"Accept: text/html\r\n"), _asks(b"GET /shared"),
    _asks(b"GET /shared", b"Cookie: PHPSESSID=~\r\n"), _asks(b"HEAD /~/1"), _asks(b"OPTIONS *"),
    _asks(b"POST /~/3", b"Content-Length: 8\r\n", b"~body~"),
    _asks(b"POST /~/4", b"Transfer-Encoding: chunked\r\n", b"4\r\n~ab\r\n2\r\n~\r\n0\r\nX: ~\r\n\r\n"),
    _asks(b"PUT /~/1", b"Expect: 100-continue\r\nContent-Length: 2\r\n", b"~"),
    _asks(b"DELETE /~/1", b"Connection: close\r\n"), _asks(b"GET /s~/stream"),
    _asks(b"GET /~/1", b"If-None-Match: \"x\"\r\n"), _asks(b"GET /~/1", b"Range: bytes=0-1\r\n"),
    _asks(b"GET /shared", b"Authorization: ~\r\nTE: trailers\r\nConnection: TE\r\n"),
    _asks(b"GET /~/1").replace(b"HTTP/1.1", b"HTTP/1.0"),
    _asks(b"GET /~/1", b"Connection: keep-alive\r\n").replace(b"HTTP/1.1", b"HTTP/1.0"),
    _asks(b"GET /~/5", b"Accept-Encoding: gzip\r\nX-Api-Key: ~\r\n"),
    _asks(b"POST /~/6", b"Content-Length: 80\r\n", b"~" * 40),
)  # fmt: skip


def _answer(lines: bytes = b"", body: bytes = b"hello", status: bytes = b"200 OK") -> bytes:
    lines = b"Date: then\r\n" + lines  # RETTER takes its time with those without
    return (
        b"HTTP/1.1 " + status + b"\r\n" + lines + b"Content-Length: %d\r\n\r\n" % len(body) + body
    )


PROPER_ANSWERS: tuple[bytes, ...] = (
    _answer(), _answer(b"ETag: \"x\"\r\nVary: Accept\r\n"), _answer(b"Set-Cookie: PHPSESSID=2\r\n"),
    _answer(body=b""), _answer(status=b"404 No"), _answer(status=b"500 Oops"),
    _answer(b"Retry-After: 1\r\n", status=b"503 Busy"), _answer(b"Connection: close\r\n"),
    _answer(b"Cache-Control: max-age=60, stale-if-error=9\r\n"), _answer(status=b"302 Found", body=b""),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n~~a\r\n1\r\nb\r\n0\r\nX: y\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 204 None\r\n\r\n", b"HTTP/1.1 304 Same\r\nETag: \"x\"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: ~~\n\n",
    _answer(b"Content-Encoding: gzip\r\n", b"\x1f\x8b"), _answer(body=b"x" * 70_000),
    _answer(b"Content-Type: text/html\r\n", b"~~" * 400),
)  # fmt: skip


# -- the operations -------------------------------------------------------------------------------


def _bears(end: FarEnd, what: int) -> None:
    (end.blocks, end.unblocks, end.blocks_at_the_next_write, end.takes_some)[what % 4]()


def _upstream(world: World, step: Step, act: Callable[[FarEnd], None]) -> None:
    if upstream := world.upstream(step.who):
        act(upstream)


def _passes(world: World, step: Step) -> None:
    # up to 1.3 s tick by tick, or a leap of up to four
    if step.what < 128:
        world.passes(step.what / 100)
    else:
        world.passes((step.what - 127) / 32, 4.0)


def repeated(step: Step) -> bytes:
    """Return the bytes with some of them again and again: up to 16, before the last up to 15."""
    end = max(0, len(step.data) - step.what % 16)
    begin = max(0, end - step.what // 16 - 1)
    piece = step.data[begin:end]
    times = max(1, (REPEATED_BYTES - len(step.data)) // max(1, len(piece)))
    return step.data[:begin] + piece * times + step.data[end:]


OPERATIONS: tuple[Callable[[World, Step], None], ...] = (
    lambda world, _: world.connects(),
    lambda world, step: world.client_sends(step.who, step.data, step.cuts),
    lambda world, step: world.client_asks(
        step.who, PROPER_REQUESTS[step.what % len(PROPER_REQUESTS)], step.cuts, step.cuts % 7
    ),
    lambda world, step: world.client(step.who).ends(),
    lambda world, step: world.client(step.who).resets(),
    lambda world, step: _bears(world.client(step.who), step.what),
    lambda world, step: world.upstream_sends(step.who, step.data, step.cuts),
    lambda world, step: world.upstream_answers(
        step.who, PROPER_ANSWERS[step.what % len(PROPER_ANSWERS)], step.cuts
    ),
    lambda world, step: _upstream(world, step, FarEnd.ends),
    lambda world, step: _upstream(world, step, FarEnd.resets),
    lambda world, step: _upstream(world, step, lambda end: _bears(end, step.what)),
    _passes,
    lambda world, step: world.dial(step.what),
    lambda world, step: world.client_sends(step.who, repeated(step), step.cuts),
    lambda world, step: world.upstream_sends(step.who, repeated(step), step.cuts),
)
(
    CONNECTS, CLIENT_SENDS, CLIENT_ASKS, CLIENT_ENDS, CLIENT_RESETS, CLIENT_BEARS, UPSTREAM_SENDS,
    UPSTREAM_ANSWERS, UPSTREAM_ENDS, UPSTREAM_RESETS, UPSTREAM_BEARS, PASSES, DIAL, CLIENT_REPEATS,
    UPSTREAM_REPEATS,
) = range(len(OPERATIONS))  # fmt: skip
OPERATION_NAMES = (
    "connects", "client sends", "client asks", "client ends", "client resets", "client bears",
    "upstream sends", "upstream answers", "upstream ends", "upstream resets", "upstream bears",
    "time passes", "dial", "client repeats", "upstream repeats",
)  # fmt: skip
_WITH_DATA = (CLIENT_SENDS, UPSTREAM_SENDS, CLIENT_REPEATS, UPSTREAM_REPEATS)


def operation_of(step: Step) -> int:
    """Return which of OPERATIONS it is; every octet is one."""
    return step.operation % LATER % len(OPERATIONS)


def do(world: World, step: Step) -> None:
    """Let one thing happen, and what follows from it at once."""
    world.proxy.loop.now += 0.001  # no two things happen at the same time
    OPERATIONS[operation_of(step)](world, step)
    if step.operation < LATER:
        world.settle()
    world.flush()


def carry_out(configuration: int, steps: Iterable[Step], memos: str = "as is") -> World:
    """Let all happen, see that everything ends, and that nothing takes long."""
    steps = list(steps)
    world = _carry_out(configuration, steps, memos)
    runs = [world.watch]
    while (found := longest(runs)) and len(runs) < RUNS_TO_BE_SURE:
        runs.append(_carry_out(configuration, steps, memos).watch)
    assert not found, f"{found.what} ({found.octets}) held the loop for {1000 * found.cpu_s:.0f} ms"
    return world


def _carry_out(configuration: int, steps: Iterable[Step], memos: str) -> World:
    world = World(configuration, memos)
    for step in steps:
        do(world, step)
    world.end()
    return world


# -- as bytes ---------------------------------------------------------------------------------------


def encode(configuration: int, steps: Iterable[Step]) -> bytes:
    out = [bytes([configuration])]
    for step in steps:
        out.append(bytes([step.operation, step.who, step.what, step.cuts]))
        if operation_of(step) in _WITH_DATA:
            out += [len(step.data).to_bytes(2, "big"), step.data]
    return b"".join(out)


def decode(data: bytes) -> tuple[int, list[Step]]:
    configuration, at = (data[0] if data else 0), 1
    steps: list[Step] = []
    while at + 4 <= len(data) and len(steps) < STEPS_MAX:
        operation, who, what, cuts = data[at : at + 4]
        at += 4
        sent = b""
        if operation_of(Step(operation)) in _WITH_DATA:
            length = int.from_bytes(data[at : at + 2], "big")
            sent = data[at + 2 : at + 2 + length]
            at += 2 + length
        steps.append(Step(operation, who, what, cuts, sent))
    return configuration, steps


# -- what they begin with ----------------------------------------------------------------------------

_GET = b"GET /~/1 HTTP/1.1\r\nHost: a\r\n\r\n"
_THEN = {Then.NOTHING: (), Then.CLOSE: (Step(UPSTREAM_ENDS),), Then.RESET: (Step(UPSTREAM_RESETS),),
         Then.SILENCE: (Step(PASSES, what=255),)}  # fmt: skip
_NEXT = (Step(CONNECTS), Step(CLIENT_ASKS, 1, 0), Step(UPSTREAM_ANSWERS, 0, 0))


def seeds() -> Iterator[tuple[str, int, tuple[Step, ...]]]:
    """The corpus as steps, each row followed by another client's request."""
    rows: tuple[Refused | CutOff | Taken, ...] = (*REFUSED, *CUT_OFF, *TAKEN)
    for number, row in enumerate(rows):
        answers = (Step(UPSTREAM_ANSWERS, 0, number % 256),) * 2
        sends = Step(CLIENT_SENDS, 0, 0, number % 256, row.sends[:20_000])
        yield row.name, number % 256, (Step(CONNECTS), sends, *answers, *_NEXT)
    for number, wrong in enumerate(MISBEHAVIOURS):
        pieces = [Step(UPSTREAM_SENDS, 0, 0, number % 256, piece[:20_000]) for piece in wrong.sends]
        asks = Step(CLIENT_SENDS, 0, 0, 0, wrong.request.replace(b"/ ", b"/~/1 "))
        late = Step(UPSTREAM_SENDS, 0, 0, 0, wrong.late)
        yield (
            wrong.name,
            number % 256,
            (Step(CONNECTS), asks, *pieces[:20], *_THEN[wrong.then], late, *_NEXT),
        )
    for number, request in enumerate(fidelity.REQUESTS):
        sends = Step(
            CLIENT_SENDS,
            0,
            0,
            number % 256,
            request.line + b"\r\nHost: a\r\n" + request.lines + b"\r\n" + request.body,
        )
        yield request.name, number % 256, (Step(CONNECTS), sends, Step(UPSTREAM_ANSWERS), *_NEXT)
    for number, answer in enumerate(fidelity.ANSWERS):
        asks = Step(CLIENT_SENDS, 0, 0, 0, answer.request)
        sends = Step(UPSTREAM_SENDS, 0, 0, number % 256, answer.sends)
        ends = (Step(UPSTREAM_ENDS),) if answer.ends else ()
        yield answer.name, number % 256, (Step(CONNECTS), asks, sends, *ends, *_NEXT)
    for one in range(len(PROPER_REQUESTS)):
        for other in range(len(PROPER_ANSWERS)):
            yield (
                f"proper {one} and {other}",
                one + other,
                (
                    Step(CLIENT_ASKS, 0, one, other),
                    Step(UPSTREAM_ANSWERS, 0, other, one),
                    Step(CLIENT_ASKS, 0, one),
                    Step(PASSES, what=30),
                    Step(UPSTREAM_ANSWERS, 0, 5),
                    *_NEXT,
                ),
            )

    for start, piece, end in REPEATED_REQUESTS:
        sends = Step(CLIENT_REPEATS, 0, what_repeats(piece, end), 0, start + piece + end)
        yield (
            f"{piece!r} again and again",
            0,
            (Step(CONNECTS), sends, Step(UPSTREAM_ANSWERS), *_NEXT),
        )
    for start, piece, end in REPEATED_ANSWERS:
        sends = Step(UPSTREAM_REPEATS, 0, what_repeats(piece, end), 0, start + piece + end)
        yield f"{piece!r} again and again", 1, (Step(CLIENT_ASKS), sends, *_NEXT)


def what_repeats(piece: bytes, end: bytes) -> int:
    """Return the step's number that repeats the piece before an end."""
    assert 0 < len(piece) <= 16 and len(end) < 16, (piece, end)
    return 16 * (len(piece) - 1) + len(end)


_START = b"GET / HTTP/1.1\r\nHost: a\r\n"
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"
REPEATED_REQUESTS = (
    (_START + b"X: ", b" ", b"\x7f\r\n\r\n"), (_START + b"Accept-Encoding: gzip", b" ", b"x\r\n\r\n"),
    (_START + b"Cookie: ", b"a=b; ", b"\r\n\r\n"), (_START + b"Cookie: a=", b"b=c,", b"\r\n\r\n"),
    (_START + b"Cache-Control: ", b"a,", b"\r\n\r\n"), (_START + b"If-None-Match: ", b'"a",', b"x\r\n\r\n"),
    (_START + b"Connection: ", b"a,", b"\r\n\r\n"), (_START, b"a:b\r\n", b"\r\n"), (b"", b"\r\n", b"x"),
    (_START + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n", b"0\r\n\r\n"),
    (_START + b"Transfer-Encoding: chunked\r\n\r\n", b"1;a=b\r\na\r\n", b"0\r\n\r\n"),
    (_START + b"\r\n", b"G / HTTP/1.1\r\n\r\n", b""), (b"GET http://", b"a", b"# HTTP/1.1\r\n"),
)  # fmt: skip
REPEATED_ANSWERS = (
    (_OK + b"X: ", b" ", b"\x7f\r\n\r\n"), (_OK + b"Vary: ", b"a,", b"\r\n\r\n"),
    (_OK + b"Cache-Control: ", b"a,", b"\r\n\r\n"), (_OK, b"Set-Cookie:a=b\r\n", b"\r\n"),
    (b"HTTP/1.1 200 ", b"a", b"\r\n\r\n"), (_OK + b"Set-Cookie: a=b", b"; a", b"\r\n\r\n"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n", b"0\r\n\r\n"),
    (b"", b"HTTP/1.1 103\r\n\r\n", b""),
)  # fmt: skip
"""Start, what comes again and again, and end."""


WORDS = (
    b"\r\n", b"\r\n\r\n", b"\n", b"\r", b" ", b"\t", b"\x00", b":", b",", b";", b"~", b"0\r\n\r\n",
    b"Host: a\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Content-Length:",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding:", b"Connection: close\r\n",
    b"Connection: keep-alive, x\r\n", b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
    b"Expect: 100-continue\r\n", b"TE: trailers\r\n", b"Trailer: X\r\n", b"Range: bytes=0-1\r\n",
    b"If-None-Match: *\r\n", b"Cookie: PHPSESSID=~\r\n", b"Vary: *\r\n", b"Vary: Accept\r\n",
    b"Set-Cookie: PHPSESSID=1\r\n", b"Cache-Control: no-store\r\n", b"HTTP/1.1 ", b"HTTP/1.0 ",
    b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 E\r\nLink: ~\r\n\r\n", b"HTTP/1.1 101 S\r\n",
    b"HTTP/1.1 204 N\r\n\r\n", b"HTTP/1.1 304 N\r\n\r\n", b"HTTP/1.1 500 O\r\n", b"GET ", b"HEAD ",
    b"POST ", b"PUT ", b"/~/1", b"*", b"http://b/", b"?", b"5\r\nhello\r\n", b"ffffffffffffffff",
    b"X_Forwarded_For: 1\r\n", b"Via: 1.1 retter\r\n", _GET,
    b"Content-Type: text/event-stream\r\n",
)  # fmt: skip


def mutated(data: bytes, chance: random.Random, mutate: Callable[[bytes], bytes]) -> bytes:
    """Change an input by its structure: a step, or the bytes that one sends."""
    configuration, steps = decode(data)
    if not steps:
        return mutate(data)
    at = chance.randrange(len(steps))
    step = steps[at]
    match chance.randrange(10):
        case 0:
            del steps[at]
        case 1:
            steps.insert(chance.randrange(len(steps) + 1), step)
        case 2:
            operation = chance.randrange(len(OPERATIONS)) + chance.choice((0, 0, 0, LATER))
            steps.insert(at, Step(operation, chance.randrange(4), chance.randrange(256),
                                  chance.choice((0, 0, chance.randrange(256)))))  # fmt: skip
        case 3:
            steps[at] = replace(step, what=chance.randrange(256), who=chance.randrange(4))
        case 4:
            steps[at] = replace(step, cuts=chance.choice((0, 255, chance.randrange(256))))
        case 5:
            configuration = chance.randrange(256)
        case 6 if step.data:
            place = chance.randrange(len(step.data) + 1)
            end = place + chance.choice((0, 0, 1, 2, 8))
            word = chance.choice(WORDS)
            steps[at] = replace(step, data=step.data[:place] + word + step.data[end:])
        case 7 if step.data:
            repeats = {CLIENT_SENDS: CLIENT_REPEATS, UPSTREAM_SENDS: UPSTREAM_REPEATS}
            operation = repeats.get(operation_of(step), step.operation)
            steps[at] = replace(step, operation=operation, what=chance.randrange(256))
        case _ if step.data:
            steps[at] = replace(step, data=mutate(step.data)[:65_535])
        case _:
            return mutate(data)
    return encode(configuration, steps)
