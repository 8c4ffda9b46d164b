"""A real application with a real limit: a PHP blog whose database takes ten connections.

16 php-fpm workers behind nginx, and a MariaDB of its own (`max_connections = 10`). A page holds one
connection for all of its time, from 200 to 400 ms. With more than ten pages at once the others end
within milliseconds as `Error establishing a database connection`, status 500: this application gets
quick, not slow, when it is overloaded. Comments are POSTs that are stored in the database.

The capacity is measured before the trial: ten connections by the mean time of a page when eight
clients ask again at once (with ten, a connection that is just being closed is counted twice now and
then). RETTER is not told of the ten.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.overload import fastcgi
from benchmarks.overload.applications import Application
from benchmarks.overload.blog import mariadb
from benchmarks.overload.blog.mariadb import CONNECTIONS, MariaDb
from benchmarks.overload.fastcgi import FastCgi, closed_loop
from benchmarks.overload.peers import free_port

SCRIPT: Final = Path(__file__).parent / "blog.php"
WORKERS: Final = 16
ARTICLES: Final = 100
QUERY_MS: Final = 300.0
CALIBRATING: Final = 8  # clients meanwhile
CALIBRATION_S: Final = 10.0  # 260 times between 200 and 400 ms: their mean is off by 1.2 %
ERRORS: Final = ("status", "disguised", "fatal", "lenient")  # see blog.php

_PARAGRAPH: Final = "<p>Of this much could be said, and in this article some of it is.</p>"
SETUP: Final = f"""\
CREATE DATABASE IF NOT EXISTS blog CHARACTER SET utf8mb4;
CREATE USER IF NOT EXISTS blog@localhost;
GRANT SELECT, INSERT ON blog.* TO blog@localhost;
CREATE TABLE IF NOT EXISTS blog.articles (id INT PRIMARY KEY, title TEXT, body TEXT);
CREATE TABLE IF NOT EXISTS blog.comments (id INT PRIMARY KEY AUTO_INCREMENT, article INT, \
author TEXT, text TEXT, INDEX (article));
INSERT IGNORE INTO blog.articles SELECT seq, CONCAT('Article ', seq), \
REPEAT('{_PARAGRAPH}', 80) FROM blog.seq_1_to_{ARTICLES};
"""


def missing() -> str:
    """Return which program is not installed; empty if all are."""
    return fastcgi.missing() or mariadb.missing()


class Blog(Application):
    """The three programs, on one core if that is given. `database` can be stopped alone."""

    page = "/article/"
    post_target = "/comment"
    post_body = "article=7&author=Ada&text=Well+said"

    def __init__(
        self,
        folder: Path,
        *,
        query_ms: float = QUERY_MS,
        core: str | None = None,
        new_port: Callable[[], int] = free_port,
    ) -> None:
        self._folder = folder / "blog"
        self._capacity = 0.0
        self._comments_before = 0
        self.database = MariaDb(self._folder, SETUP, core=core)
        self._programs = FastCgi(
            self._folder,
            SCRIPT,
            workers=WORKERS,
            params={"BLOG_FOLDER": str(self._folder), "BLOG_QUERY_MS": f"{query_ms:g}"},
            ini={"display_errors": "1", "log_errors": "0"},
            core=core,
            new_port=new_port,
        )

    @property
    def capacity(self) -> float:
        """The pages a second that it was seen to make; 0 before `measure`."""
        return self._capacity

    def start(self) -> None:
        """Start all and measure the capacity. Raises StartFailed."""
        self.start_programs()
        times = closed_loop(self.port, self.page, CALIBRATING, CALIBRATION_S)
        self._capacity = CONNECTIONS * len(times) / sum(times)

    def start_programs(self) -> None:
        """Start all, without measuring. Raises StartFailed."""
        self._folder.mkdir()
        self._folder.chmod(0o755)
        self.database.start()
        self._programs.start(f"{self.page}1")
        self.port = self._programs.port

    def stop(self) -> None:
        """End all three."""
        self._programs.stop()
        self.database.stop()

    def tell_errors_as(self, errors: str) -> None:
        """Choose what a visitor is told when there is no database. Raises ValueError."""
        if errors not in ERRORS:
            raise ValueError(f"{errors!r} is none of {', '.join(ERRORS)}")
        (self._folder / "errors").write_text(errors)

    def turn(self, knobs: Mapping[str, Any]) -> None:
        """Refuse: it has no knobs."""
        raise ValueError(f"the blog has no knobs: {', '.join(knobs)}")

    def comments(self) -> int:
        """Return how many comments are stored."""
        return int(self.database.ask("SELECT COUNT(*) FROM blog.comments"))

    def count_anew(self) -> None:
        """Let the count of comments start from here; the programs' own go on."""
        self._comments_before = self.comments()

    def stats(self) -> dict[str, Any]:
        """Return the comments stored, and php-fpm's figures since its start."""
        return {
            "comments": self.comments() - self._comments_before,
            "capacity": self._capacity,
            "php_fpm": self._programs.status(),
        }

    def cpu_s(self) -> float:
        """Return the processor seconds all have used."""
        return self._programs.cpu_s() + self.database.cpu_s()
