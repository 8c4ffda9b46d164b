"""A WordPress to try RETTER on: Debian's, in a folder of its own, with ten database connections.

php-fpm with 16 workers behind nginx, and a MariaDB of its own, as for the blog: more than ten pages
at once are `Error establishing a database connection`. Nothing of this machine's own web server,
database or WordPress is touched.
"""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks.overload import fastcgi
from benchmarks.overload.blog import mariadb
from benchmarks.overload.blog.mariadb import MariaDb
from benchmarks.overload.fastcgi import FastCgi
from benchmarks.overload.peers import StartFailed, free_port, path_of

HERE: Final = Path(__file__).parent
SOURCE: Final = Path("/usr/share/wordpress")  # Debian's package
PACKAGES: Final = (
    "wordpress wordpress-theme-twentytwentythree mariadb-server php-fpm "
    "php-mysql php-xml php-cli nginx-light"
)
WORKERS: Final = 16
POSTS: Final = 100
INSTALL_S: Final = 300.0  # what a machine under load may need at worst

SETUP: Final = """\
CREATE DATABASE IF NOT EXISTS wordpress CHARACTER SET utf8mb4;
CREATE USER IF NOT EXISTS wordpress@localhost;
GRANT ALL ON wordpress.* TO wordpress@localhost;
"""


def missing() -> str:
    """Return what is not installed; empty if all is."""
    if not (SOURCE / "wp-load.php").exists():
        return "wordpress"
    if not any((SOURCE / "wp-content/themes").glob("*/")):
        return "a theme of WordPress"
    if path_of("php") is None:
        return "php"
    if not any(Path("/usr/lib/php").glob("*/simplexml.so")):
        return "php-xml"  # for the sitemap
    return fastcgi.missing() or mariadb.missing()


class WordPress:
    """The programs, and the posts in the database. `database` can be killed and started again."""

    def __init__(self, folder: Path, new_port: Callable[[], int] = free_port) -> None:
        self._folder = folder
        self._site = folder / "site"
        self.database = MariaDb(folder / "database", SETUP)
        self._programs = FastCgi(
            folder,
            HERE / "router.php",
            workers=WORKERS,
            params={"WORDPRESS_FOLDER": str(self._site), "HTTP_HOST": "$http_host"},
            ini={"display_errors": "0", "log_errors": "0"},
            new_port=new_port,
        )

    @property
    def port(self) -> int:
        """Where nginx listens."""
        return self._programs.port

    def start(self, say: Callable[[str], None] = lambda _: None) -> None:
        """Install WordPress and start all. Raises StartFailed."""
        self._folder.chmod(0o755)
        say("copying WordPress")
        shutil.copytree(SOURCE, self._site, ignore=shutil.ignore_patterns("wp-config.php"))
        shutil.copy(HERE / "wp-config.php", self._site)
        say("starting a database of ten connections")
        (self._folder / "database").mkdir()
        (self._folder / "database").chmod(0o755)
        self.database.start()
        say(f"installing, with {POSTS} posts")
        self._install()
        say("starting php-fpm and nginx")
        self._programs.start("/post-number-1/")

    def _install(self) -> None:
        php = path_of("php") or "php"
        command = (
            php,
            str(HERE / "install.php"),
            str(self._site),
            "http://localhost:80",
            str(POSTS),
        )
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=INSTALL_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise StartFailed(f"WordPress: not installed within {INSTALL_S:.0f} s") from None
        if done.returncode or "Error" in done.stdout:
            raise StartFailed(f"WordPress: {done.stdout[-500:]}{done.stderr[-500:]}")

    def stop(self) -> None:
        """End all."""
        self._programs.stop()
        self.database.stop()
