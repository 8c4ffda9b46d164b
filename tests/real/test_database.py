"""A blog in PHP whose MariaDB is killed, frozen, locked or taken up: visitors see its good pages.

The application is the benchmark's (benchmarks/overload/blog): php-fpm behind nginx, and a MariaDB
of its own that takes ten connections.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from benchmarks.overload import blog
from benchmarks.overload.blog import Blog
from benchmarks.overload.blog.mariadb import CONNECTIONS
from benchmarks.overload.peers import StartFailed
from tests.real.conftest import StartRetter
from tests.real.processes import RetterProgram, eventually, free_port
from tests.real.wire import Answer, fetch
from tests.support.tracing import untraced

pytestmark = [pytest.mark.xdist_group("database"), untraced]  # one site for all

PAGES = ("/", "/article/1", "/article/2")
# What the blog says when it has no database; see blog.php.
ERROR_TEXTS = ("Error establishing", "DB error", "Fatal error", "mysqli_sql_exception")
ROUNDS = 4  # from CLOSED at first, from an open circuit later

# One process runs them all: each would start a database of its own.

Fault = Callable[[Blog], AbstractContextManager[None]]


@pytest.fixture(scope="module")
def running_site() -> Iterator[Blog]:
    if program := blog.missing():
        pytest.skip(f"{program} is not installed (php-fpm, php-mysql, nginx-light, mariadb-server)")
    # A short name: the path of a Unix socket has room for 107 octets.
    with tempfile.TemporaryDirectory(prefix="blog-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # MariaDB runs as another user
        site = Blog(folder, query_ms=30, new_port=free_port)
        try:
            site.start_programs()
            yield site
        finally:
            site.stop()


@pytest.fixture
def site(running_site: Blog) -> Blog:
    running_site.tell_errors_as("status")
    return running_site


@pytest.fixture
def proxy(site: Blog, start_retter: StartRetter) -> RetterProgram:
    # A page takes some 40 ms; who waits longer than half a second is given the stored one.
    return start_retter(
        "--upstream",
        f"127.0.0.1:{site.port}",
        "--patience-closed",
        "500ms",
        "--queue-wait",
        "200ms",
    )


def fresh(proxy: RetterProgram, target: str) -> Answer:
    """Ask until the blog itself has answered, and well."""
    answers: list[Answer] = []

    def good() -> bool:
        answers.append(fetch(proxy.port, "GET", target))
        return answers[-1].status == 200 and not answers[-1].stored and whole(answers[-1])

    eventually(good, f"{target} by the blog itself, not {answers[-1:]}")
    return answers[-1]


def whole(answer: Answer) -> bool:
    """Tell whether it is a page with its articles."""
    text = answer.text
    return (
        "some of it is" in text
        and text.endswith("</html>\n")
        and not any(words in text for words in ERROR_TEXTS)
    )


def nobody_sees_the_fault(proxy: RetterProgram, *targets: str) -> None:
    for _ in range(ROUNDS):
        for target in targets or PAGES:
            answer = fetch(proxy.port, "GET", target)
            assert answer.status == 200, (target, answer)
            assert whole(answer), (target, answer)


@contextmanager
def killed(site: Blog) -> Iterator[None]:
    site.database.kill()
    try:
        yield
    finally:
        site.database.start()


@contextmanager
def frozen(site: Blog) -> Iterator[None]:
    site.database.freeze()
    try:
        yield
    finally:
        site.database.thaw()


def locked(site: Blog) -> AbstractContextManager[None]:
    """Return a context in which nobody can read the articles: each page waits."""
    return site.database.held("LOCK TABLES blog.articles WRITE")


@contextmanager
def taken_up(site: Blog) -> Iterator[None]:
    """All connections are somebody else's: `Too many connections`, at once."""
    with ExitStack() as others:

        def one_more() -> bool:
            try:
                others.enter_context(site.database.held("DO 1", user="blog"))
            except StartFailed:
                return False  # a page that was asked for before still has it
            return True

        for _ in range(CONNECTIONS):
            eventually(one_more, "a connection to the database")
        yield


def test_without_a_fault_everything_is_the_blogs_own(site: Blog, proxy: RetterProgram) -> None:
    for target in PAGES:
        first, second = fresh(proxy, target), fresh(proxy, target)
        assert first.body == second.body
        assert first.get("x-gen") != second.get("x-gen")
    assert fetch(proxy.port, "GET", "/article/101").status == 404

    before = site.comments()
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = fetch(proxy.port, "POST", "/comment", form, b"article=1&author=Eve&text=%3Ci%3Efirst")
    assert (answer.status, answer.get("location")) == (303, "/article/1")
    assert site.comments() == before + 1
    assert "<li>Eve: &lt;i&gt;first</li>" in fresh(proxy, "/article/1").text


@pytest.mark.parametrize(
    ("fault", "errors"),
    [
        *((fault, errors) for fault in (killed, taken_up) for errors in blog.ERRORS),
        # Nothing is said while the database does not answer.
        (frozen, "status"),
        (locked, "status"),
    ],
)
def test_visitors_see_the_good_pages_whatever_the_database_does(
    fault: Fault, errors: str, site: Blog, proxy: RetterProgram
) -> None:
    for target in PAGES:
        fresh(proxy, target)
    site.tell_errors_as(errors)
    with fault(site):
        nobody_sees_the_fault(proxy)
    for target in PAGES:
        fresh(proxy, target)


def test_a_page_without_its_articles_does_not_replace_the_whole_one(
    site: Blog, proxy: RetterProgram
) -> None:
    fresh(proxy, "/")
    site.tell_errors_as("lenient")
    with locked(site):
        for _ in range(ROUNDS):  # the first is late: from then on nothing is believed too much
            assert fetch(proxy.port, "GET", "/").status == 200
        # The blog has made its page without articles, whoever was given it.
        broken = fetch(site.port, "GET", "/")
        assert broken.status == 200 and not whole(broken)
    with killed(site):
        nobody_sees_the_fault(proxy, "/")
    fresh(proxy, "/")


def test_a_page_that_was_never_good_is_told_as_it_is(site: Blog, proxy: RetterProgram) -> None:
    site.tell_errors_as("disguised")
    with killed(site):
        answer = fetch(proxy.port, "GET", "/article/9")
        assert "DB error: too many connections" in answer.text
    assert whole(fresh(proxy, "/article/9"))
