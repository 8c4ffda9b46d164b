"""A MariaDB of its own: in a folder of the caller's, reached by a socket there, ended by its id.

It can be killed, frozen, thawed and started again. What is started here is Debian's mariadbd with
Debian's defaults replaced (`--no-defaults`), so no database of this machine is touched.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.overload.peers import Process, StartFailed, path_of

CONNECTIONS: Final = 10  # the least that MariaDB takes
START_S: Final = 60.0  # what a machine under load may need at worst
POLL_S: Final = 0.02
# A server of 16 MiB is enough for a hundred articles. Asynchronous I/O of the kernel is a resource
# that all servers of a machine share, and the start fails when none is left.
NO_AIO: Final = "--innodb-use-native-aio=0"
SMALL: Final = (
    NO_AIO,
    "--innodb-buffer-pool-size=16M", "--innodb-log-file-size=8M", "--key-buffer-size=1M",
    "--aria-pagecache-buffer-size=1M", "--skip-name-resolve", "--skip-networking",
)  # fmt: skip
INSTALLS_MAX: Final = 3  # a machine that is short of memory for a moment may fail one
PROGRAMS: Final = ("mariadbd", "mariadb-install-db", "mariadb")


def missing() -> str:
    """Return which program is not installed; empty if all are."""
    return next((program for program in PROGRAMS if path_of(program) is None), "")


class MariaDb:
    """One server. `setup` is run at each start: a statement a line, repeatable.

    `connections` is for ordinary users; one more is kept for root, who has no password.
    """

    def __init__(
        self,
        folder: Path,
        setup: str,
        *,
        connections: int = CONNECTIONS,
        core: str | None = None,
    ) -> None:
        self.socket = folder / "data" / "db.sock"  # where its user may write
        self._data = folder / "data"
        self._setup = folder / "setup.sql"
        self._log = folder / "mariadbd.out"
        self._connections = connections
        self._core = core
        self._statements = setup
        self._process: Process | None = None

    def start(self) -> None:
        """Start it, with a new data directory the first time. Raises StartFailed."""
        if self._process is not None:
            self._process.stop()  # it has ended, or else two would share its files
        user = _user()
        if not self._data.exists():
            self._data.mkdir(parents=True)
            self._setup.write_text(self._statements)
            self._install(user)
        self._process = Process(
            (
                path_of("mariadbd") or "mariadbd",
                "--no-defaults",
                *user,
                f"--datadir={self._data}",
                f"--socket={self.socket}",
                f"--pid-file={self._data}/pid",
                f"--init-file={self._setup}",
                f"--max-connections={self._connections}",
                *SMALL,
            ),
            core=self._core,
            log=self._log,
        )
        self._wait_until_it_greets()

    def _install(self, user: tuple[str, ...]) -> None:
        program = path_of("mariadb-install-db") or "mariadb-install-db"
        command = (
            program, "--no-defaults", *user, f"--datadir={self._data}", NO_AIO, "--skip-test-db",
            "--auth-root-authentication-method=normal", "--skip-name-resolve",
        )  # fmt: skip
        said = ""
        for _ in range(INSTALLS_MAX):
            try:
                subprocess.run(command, check=True, capture_output=True, timeout=START_S)
                return
            except (OSError, subprocess.SubprocessError) as error:
                said = f"{error} {getattr(error, 'stderr', b'') or b''!r}"
            shutil.rmtree(self._data, ignore_errors=True)
            self._data.mkdir(parents=True)
        raise StartFailed(f"mariadb-install-db: {said}")

    def _wait_until_it_greets(self) -> None:
        # The socket exists before it is served; its first bytes come when all is ready.
        assert self._process is not None
        end = time.monotonic() + START_S
        while time.monotonic() < end and self._process.runs():
            with socket.socket(socket.AF_UNIX) as attempt:
                attempt.settimeout(START_S)
                try:
                    attempt.connect(str(self.socket))
                    if attempt.recv(1):
                        return
                except OSError:
                    pass
            time.sleep(POLL_S)
        raise StartFailed(self._process.last_words())

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        """End it, frozen or not."""
        if self._process is not None:
            if self._process.runs():
                self.thaw()
            self._process.stop()

    def kill(self) -> None:
        """End it at once, as the kernel does when memory runs out."""
        assert self._process is not None
        self._process.kill()

    def freeze(self) -> None:
        """Stop it where it is: it takes connections (the kernel does) and answers nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def ask(self, statement: str) -> str:
        """Return what root is answered, a row a line. Raises OSError or SubprocessError."""
        asked = subprocess.run(
            (*self._client("root"), "--execute", statement),
            check=True,
            capture_output=True,
            text=True,
            timeout=START_S,
        )
        return asked.stdout.strip()

    @contextmanager
    def held(self, statement: str, *, user: str = "root") -> Iterator[None]:
        """Keep a connection open that has run this, a LOCK TABLES say, until the end."""
        client = subprocess.Popen(
            (*self._client(user), "--unbuffered"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        assert client.stdin is not None and client.stdout is not None
        try:
            client.stdin.write(f"{statement}; SELECT 'held';\n")
            if client.stdout.readline().strip() != "held":
                raise StartFailed(f"{statement}: refused")
            yield
        finally:
            with client.stdout:
                client.stdin.close()
            client.wait()

    def _client(self, user: str) -> tuple[str, ...]:
        return (
            path_of("mariadb") or "mariadb", "--no-defaults", f"--socket={self.socket}",
            f"--user={user}", "--skip-column-names", "--batch",
        )  # fmt: skip

    def cpu_s(self) -> float:
        """Return the processor seconds it has used since its last start."""
        return self._process.cpu_s() if self._process is not None else 0.0


def _user() -> tuple[str, ...]:
    """Return the option that names the user to run as; only root may, and must, name one."""
    if os.geteuid() != 0:
        return ()
    for name in ("mysql", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return (f"--user={name}",)
    raise StartFailed("there is no user mysql or nobody to run mariadbd as")
