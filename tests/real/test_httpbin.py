"""httpbin under gunicorn: through RETTER everything is as without it, restarts included."""

import base64
import gzip
import json
import signal
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from tests.real.conftest import StartRetter
from tests.real.processes import Program, RetterProgram, accepts, eventually, free_port
from tests.real.wire import Answer, Body, Client, fetch
from tests.support.tracing import untraced

pytestmark = untraced

KEEP_ALIVE_S = 2


class Gunicorn:
    """httpbin on gunicorn, with its default keep-alive, which can be restarted."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self.port = free_port()
        self.start()

    def start(self) -> None:
        self.program = Program(
            [sys.executable, "-m", "gunicorn", "httpbin:app", "-b", f"127.0.0.1:{self.port}",
             "-k", self._worker, "--workers", "2", "--threads", "8",
             "--keep-alive", str(KEEP_ALIVE_S), "--graceful-timeout", "5"],
        )  # fmt: skip
        self.program.wait_for_line(lambda line: "Listening at" in line)
        eventually(lambda: fetch(self.port, "GET", "/status/200").status == 200, "httpbin answers")

    def reload(self) -> None:
        """Replace the workers, as a deployment does."""
        booted = self.program.output.count("Booting worker")
        self.program.signal(signal.SIGHUP)
        eventually(lambda: self.program.output.count("Booting worker") >= booted + 2, "reloaded")


@pytest.fixture(scope="module", params=["gthread", "sync"])
def httpbin(gunicorn: str, request: pytest.FixtureRequest) -> Iterator[Gunicorn]:
    """Workers that keep connections open, and workers that never do."""
    program = Gunicorn(request.param)
    yield program
    program.program.kill()


@pytest.fixture(scope="module")
def proxy(httpbin: Gunicorn, start_retter_once: StartRetter) -> RetterProgram:
    # 5xx are asked for on purpose here: the circuit only watches. Answers are compared as they are.
    return start_retter_once(
        "--upstream", f"127.0.0.1:{httpbin.port}", "--circuit", "observe", "--compress", "off"
    )


# Fields that belong to one connection or to the proxy, or change from second to second.
OURS = frozenset(
    {
        "connection",
        "keep-alive",
        "transfer-encoding",
        "date",
        "via",
        "x-retter",
        "x-circuit",
        "cache-status",
    }
)


def end_to_end(answer: Answer) -> tuple[int, list[tuple[str, str]], bytes]:
    fields = [(name, value) for name, value in answer.fields if name.lower() not in OURS]
    return answer.status, fields, answer.body


FORM = {"Content-Type": "application/x-www-form-urlencoded"}
BASIC = {"Authorization": "Basic " + base64.b64encode(b"alice:secret").decode()}
DIGITS = bytes(range(48, 58)) * 20_000

CASES: list[tuple[str, str, Mapping[str, str], Body]] = [
    *[
        ("GET", target, {}, None)
        for target in (
            "/",
            "/get?a=1&b=%20%C3%A4&c",
            "/html",
            "/json",
            "/xml",
            "/robots.txt",
            "/encoding/utf8",
            "/image/png",
            "/bytes/0",
            "/bytes/1?seed=1",
            "/bytes/100000?seed=7",
            "/stream/5",
            "/stream-bytes/50000?seed=3&chunk_size=777",
            "/drip?numbytes=10&duration=0&delay=0",
            "/links/3/0",
            "/base64/cmV0dGVy",
            "/redirect/2",
            "/absolute-redirect/1",
            "/redirect-to?url=%2Fget&status_code=307",
            "/cookies/set?a=1&b=2",
            "/cookies/delete?a",
            "/cache/60",
            "/etag/tag",
            "/response-headers?X-One=1&X-One=2&Server-Timing=db",
            "/deny",
            "/delay/0",
            "/anything//x/",
            "/basic-auth/alice/secret",
            "/hidden-basic-auth/alice/secret",
            "/bearer",
        )
    ],
    *[
        ("GET", f"/status/{status}", {}, None)
        for status in (
            200,
            201,
            202,
            203,
            204,
            206,
            300,
            301,
            302,
            303,
            304,
            305,
            307,
            400,
            401,
            402,
            403,
            404,
            405,
            406,
            409,
            410,
            412,
            418,
            422,
            428,
            429,
            451,
            500,
            501,
            502,
            503,
            504,
            505,
            599,
        )
    ],
    ("HEAD", "/html", {}, None),
    ("HEAD", "/bytes/1000?seed=1", {}, None),
    ("HEAD", "/stream/5", {}, None),
    ("OPTIONS", "/get", {}, None),
    ("POST", "/post", FORM, b"a=1&b=2"),
    ("POST", "/post", {}, b""),
    ("POST", "/post", {"Content-Type": "text/plain"}, DIGITS),
    ("POST", "/status/201", FORM, b"a=1"),
    ("POST", "/status/500", FORM, b"a=1"),
    ("PUT", "/put", FORM, b"a=1"),
    ("PATCH", "/patch", {}, b"{}"),
    ("DELETE", "/delete", {}, None),
    ("DELETE", "/delete", {}, b"with a body"),
    ("GET", "/get", {"Content-Type": "text/plain"}, b"a body that no GET should have"),
    ("FROB", "/anything", {}, None),
    ("GET", "/range/1000", {}, None),
    ("GET", "/range/1000", {"Range": "bytes=10-19"}, None),
    ("GET", "/range/1000", {"Range": "bytes=-5"}, None),
    ("GET", "/range/1000", {"Range": "bytes=5000-"}, None),
    ("GET", "/etag/tag", {"If-None-Match": '"tag"'}, None),
    ("GET", "/etag/tag", {"If-None-Match": "*"}, None),
    ("GET", "/etag/tag", {"If-Match": '"other"'}, None),
    ("GET", "/cache", {"If-Modified-Since": "Sat, 01 Jan 2000 00:00:00 GMT"}, None),
    ("GET", "/basic-auth/alice/secret", BASIC, None),
    ("GET", "/basic-auth/bob/secret", BASIC, None),
    ("GET", "/cookies", {"Cookie": "; ".join(f"c{n}={'v' * 200}" for n in range(30))}, None),
    ("GET", "/headers", {f"X-Field-{n}": "v" * 80 for n in range(50)}, None),
]

# What RETTER adds to the request, as httpbin shows it; httpbin hides some of it itself.
ADDED_FIELDS = ("Via", "Connection", "X-Forwarded-Host", "X-Forwarded-Proto")


def without_forwarding(answer: Answer) -> Answer:
    """Leave out what httpbin tells of the way that the request took."""
    if "json" not in (answer.get("content-type") or "") or not answer.body:
        return answer
    # /stream has a document a line, the others one on many lines
    texts = answer.body.splitlines() if b"\n{" in answer.body else [answer.body]
    documents: list[dict[str, Any]] = [json.loads(text) for text in texts]
    for document in documents:
        for name in ADDED_FIELDS:
            document.get("headers", {}).pop(name, None)
    fields = [pair for pair in answer.fields if pair[0].lower() != "content-length"]
    return Answer(answer.status, fields, json.dumps(documents).encode())


@pytest.mark.parametrize(
    ("method", "target", "fields", "body"), CASES,
    ids=[f"{method} {target[:40]} {' '.join(fields)[:20]}" for method, target, fields, _ in CASES],
)  # fmt: skip
def test_httpbin_is_the_same_through_retter(
    httpbin: Gunicorn,
    proxy: RetterProgram,
    method: str,
    target: str,
    fields: Mapping[str, str],
    body: Body,
) -> None:
    host = {"Host": "shop.example"}
    direct = fetch(httpbin.port, method, target, {**host, **fields}, body)
    for _ in range(2):  # on a fresh connection to the application, and on a used one
        through = fetch(proxy.port, method, target, {**host, **fields}, body)
        assert end_to_end(without_forwarding(through)) == end_to_end(without_forwarding(direct))
        assert through.get("via") == "1.1 retter"


def test_httpbin_codings_arrive_as_they_were_made(proxy: RetterProgram) -> None:
    answers = {
        name: fetch(proxy.port, "GET", f"/{name}", {"Accept-Encoding": "gzip, deflate, br"})
        for name in ("gzip", "deflate", "brotli")
    }
    codings = {name: answer.get("content-encoding") for name, answer in answers.items()}
    assert codings == {"gzip": "gzip", "deflate": "deflate", "brotli": "br"}
    assert json.loads(gzip.decompress(answers["gzip"].body))["gzipped"] is True
    assert json.loads(zlib.decompress(answers["deflate"].body))["deflated"] is True


def test_httpbin_uploads_in_chunks(proxy: RetterProgram) -> None:
    pieces = [b"%d," % number for number in range(1000)]
    answer = fetch(proxy.port, "POST", "/post", {"Content-Type": "text/plain"}, iter(pieces))
    assert answer.status == 200 and answer.json["data"] == b"".join(pieces).decode()


def test_httpbin_is_told_who_asks(proxy: RetterProgram) -> None:
    answer = fetch(proxy.port, "GET", "/get?show_env=1", {"X-Forwarded-For": "192.0.2.1"})
    headers = answer.json["headers"]
    assert headers["X-Forwarded-Proto"] == "http" and headers["X-Real-Ip"] == "127.0.0.1"
    assert headers["X-Forwarded-For"].split(", ")[-1] == "127.0.0.1"


def test_httpbin_sets_cookies_through_redirects(proxy: RetterProgram) -> None:
    client = Client(proxy.port)
    answer = client.get("/cookies/set?flavour=vanilla&size=2")
    assert (answer.status, answer.get("location")) == (302, "/cookies")
    assert sorted(answer.get_all("set-cookie")) == ["flavour=vanilla; Path=/", "size=2; Path=/"]
    assert client.get("/cookies", Cookie="flavour=vanilla").json["cookies"]["flavour"] == "vanilla"
    client.close()


# Who has nothing stored is told at once that the application is dead.
IMPATIENT = ("--connect-hold", "100ms", "--queue-wait", "100ms")


def basic(name: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:secret".encode()).decode()}


@pytest.fixture
def own(gunicorn: str) -> Iterator[Gunicorn]:
    """A gunicorn that the test may restart."""
    program = Gunicorn("gthread")
    yield program
    program.program.kill()


def test_httpbin_dead_and_no_credential_gets_anothers_page(
    own: Gunicorn, start_retter: StartRetter, loop_name: str
) -> None:
    proxy = start_retter("--upstream", f"127.0.0.1:{own.port}", "--loop", loop_name, *IMPATIENT)
    client = Client(proxy.port)

    def get(target: str, fields: Mapping[str, str]) -> Answer:
        return client("GET", target, fields)

    bearers = [{"Authorization": f"Bearer {token}"} for token in ("red", "green")]
    keys = [{"X-Api-Key": key} for key in ("k1", "k2")]
    people = [*map(basic, ("alice", "bob")), *bearers, *keys]
    pages = [get("/anything/mine", fields) for fields in people]
    assert len({page.body for page in pages}) == len(people)
    public = get("/uuid", {})
    own.program.kill()
    for fields, page in zip(people, pages, strict=True):
        answer = get("/anything/mine", fields)
        assert answer.stored and answer.body == page.body
        assert get("/uuid", fields).status in (502, 503)  # credentials: not even the public page
    for fields in ({}, basic("mallory"), {"Authorization": "Bearer blue"}, {"X-Api-Key": "k3"}):
        assert get("/anything/mine", fields).status in (502, 503)
    assert get("/uuid", {}).body == public.body
    client.close()


def plain(answer: Answer) -> bytes:
    coded = answer.get("content-encoding") == "gzip"
    return gzip.decompress(answer.body) if coded else answer.body


def test_httpbin_stores_what_was_compressed_and_answers_conditions(
    own: Gunicorn, start_retter: StartRetter, loop_name: str
) -> None:
    proxy = start_retter("--upstream", f"127.0.0.1:{own.port}", "--loop", loop_name, *IMPATIENT)
    client = Client(proxy.port)
    encoded = {"Accept-Encoding": "gzip"}
    targets = ("/gzip", "/cache", "/stream/5", "/html")  # compressed, too small, two that gain
    pages = {target: client("GET", target, encoded) for target in targets}
    for status in (404, 500):
        assert client.get(f"/status/{status}").status == status
    own.program.kill()
    for target, page in pages.items():
        answer = client("GET", target, encoded)
        assert answer.stored and answer.status == 200
        codings = {one.get("content-encoding") for one in (answer, page)}
        if target in ("/gzip", "/cache"):
            assert codings == {"gzip" if target == "/gzip" else None}
        else:  # a loop that lags leaves what the application did not compress as it is
            assert codings <= {"gzip", None}
        assert plain(answer) == plain(page)
    modified = str(pages["/cache"].get("last-modified"))
    for target, condition in (
        ("/cache", {"If-Modified-Since": modified}),
        ("/gzip", {"If-None-Match": "*"}),
    ):
        answer = client("GET", target, encoded | condition)
        assert (answer.status, answer.body) == (304, b"") and answer.stored
    answer = client("GET", "/html", {"Range": "bytes=0-14"})
    assert (answer.status, answer.body) == (206, b"<!DOCTYPE html>") and answer.stored
    for status in (404, 500):  # never stored
        assert client.get(f"/status/{status}").status in (502, 503)
    client.close()


# -- connections that gunicorn is just closing ----------------------------------------------------


def test_httpbin_closing_idle_connections_fails_nobody(
    own: Gunicorn, start_retter: StartRetter
) -> None:
    """Requests around the moment at which gunicorn closes (2 s) meet no closed connection.

    By default RETTER closes first, so that nothing can go wrong for a POST either. Kept for
    longer, gunicorn closes first, and what then dies is sent once more if that does no harm.
    """
    careful = start_retter("--upstream", f"127.0.0.1:{own.port}")
    careless = start_retter("--upstream", f"127.0.0.1:{own.port}", "--pool-idle", "30s")
    failed: list[str] = []

    def ask(proxy: RetterProgram, methods: tuple[str, ...], pause_s: float) -> None:
        client = Client(proxy.port)
        for number in range(4):
            for method in methods:
                answer = client(method, f"/anything/{pause_s}/{number}")
                if answer.status != 200:
                    failed.append(f"{method} after {pause_s} s: {answer}")
            time.sleep(pause_s if number < 3 else 0)  # these pauses are what is tested
        client.close()

    pauses = [1.3, 1.45, 1.5, 1.55, 1.95, 1.98, 1.99, 2.0, 2.0, 2.01, 2.02, 2.05]
    threads = [
        threading.Thread(target=ask, args=(proxy, methods, pause_s))
        for pause_s in pauses
        for proxy, methods in ((careful, ("GET", "POST")), (careless, ("GET", "PUT")))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed


# -- restarts -------------------------------------------------------------------------------------


class Visits:
    """GETs for known pages, by a few clients, until told to stop."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(4)]
        self.fresh = [0] * 4
        self.stored = [0] * 4
        self.failed: list[str] = []

    def __enter__(self) -> "Visits":
        for number in range(len(self._threads)):
            for page in range(5):
                assert fetch(self._port, "GET", f"/anything/{number}/{page}").status == 200
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        client = Client(self._port)
        page = 0
        while not self._stop.wait(0.01):
            page = (page + 1) % 5
            try:
                answer = client.get(f"/anything/{number}/{page}")
            except OSError as error:
                self.failed.append(repr(error))
                return
            if answer.status != 200 or not answer.json["url"].endswith(f"/{number}/{page}"):
                self.failed.append(str(answer))
            (self.stored if answer.stored else self.fresh)[number] += 1
        client.close()

    def more(self, counts: Callable[[], list[int]]) -> None:
        before = list(counts())
        eventually(
            lambda: all(now > then for now, then in zip(counts(), before, strict=True)), "visits"
        )


def test_httpbin_workers_are_replaced_under_load(
    own: Gunicorn, start_retter: StartRetter, loop_name: str
) -> None:
    proxy = start_retter("--upstream", f"127.0.0.1:{own.port}", "--loop", loop_name)
    with Visits(proxy.port) as visits:
        for _ in range(2):
            own.reload()
            visits.more(lambda: visits.fresh)
    assert not visits.failed, visits.failed[:3]


def test_httpbin_is_killed_and_started_under_load(
    own: Gunicorn, start_retter: StartRetter, loop_name: str
) -> None:
    """GETs with a stored page get it; other requests are held until the application is back."""
    proxy = start_retter(
        "--upstream",
        f"127.0.0.1:{own.port}",
        "--loop",
        loop_name,
        "--connect-hold",
        "25s",
        "--open-max",
        "1s",
    )
    held: list[Answer] = []

    def post(number: int) -> None:
        held.append(fetch(proxy.port, "POST", "/post", FORM, f"number={number}".encode()))

    with Visits(proxy.port) as visits:
        own.program.kill()
        assert not accepts(own.port)
        posts = [threading.Thread(target=post, args=(number,)) for number in range(5)]
        for thread in posts:
            thread.start()
        visits.more(lambda: visits.stored)
        assert not held
        own.start()
        for thread in posts:
            thread.join()
        visits.more(lambda: visits.fresh)
    assert not visits.failed, visits.failed[:3]
    assert [answer.status for answer in held] == [200] * 5, held
    assert sorted(answer.json["form"]["number"] for answer in held) == list("01234")
