"""The Debian package: built, installed into a folder, started as its unit starts it, and purged.

dpkg can install below a folder that is no whole system (`--root` with `--force-script-chrootless`,
dpkg(1)). What the package needs is looked for on this machine. Collected only by `make deb-test`,
which builds the package first.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.conftest import need
from tests.real.processes import ApplicationProgram, Program, RetterProgram, eventually
from tests.real.wire import fetch


def run(*command: str | Path, **variables: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | variables,
        cwd="/",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# Where the user stands that the package makes; it stays, for files may still be its own.
USERS = ("etc/passwd", "etc/group", "etc/shadow", "etc/gshadow", "etc/.pwd.lock")


class Installed:
    """A package installed below a folder."""

    def __init__(self, root: Path, package: Path) -> None:
        self.root = root
        self._dpkg = [
            need("dpkg", "dpkg"), f"--root={root}", "--force-script-chrootless",
            "--force-depends", f"--log={root}/dpkg.log",
        ]  # fmt: skip
        for folder in ("updates", "info", "triggers"):
            (root / "var/lib/dpkg" / folder).mkdir(parents=True)
        (root / "var/lib/dpkg/status").touch()
        run(*self._dpkg, "--install", package)

    def purge(self) -> None:
        run(*self._dpkg, "--purge", "retter")

    def command(self, *arguments: str) -> list[str]:
        """Return the program with arguments: its first line names a path from the real root."""
        programs = self.root / "opt/retter/bin"
        return [str(programs / "python3"), "-B", str(programs / "retter"), *arguments]

    def files(self) -> set[str]:
        found = [path for path in self.root.rglob("*") if not path.is_dir()]
        return {
            str(path.relative_to(self.root))
            for path in found
            if not str(path.relative_to(self.root)).startswith(("var/lib/dpkg", "dpkg.log", *USERS))
        }


class Started(RetterProgram):
    """The installed program with other words than those of a test."""

    def __init__(self, command: list[str]) -> None:
        Program.__init__(self, command)


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    return Installed(tmp_path / "root", Path(os.environ["RETTER_DEB"]))


@pytest.fixture
def application() -> Iterator[ApplicationProgram]:
    program = ApplicationProgram()
    yield program
    program.kill()


@pytest.fixture
def programs() -> Iterator[list[Program]]:
    started: list[Program] = []
    yield started
    for program in started:
        program.kill()


def test_it_brings_the_program_with_what_it_needs(installed: Installed) -> None:
    assert run(*installed.command("--version")).startswith("retter ")
    code = (
        "import lmdb, redis, hiredis, zstandard, brotli, prometheus_client, uvloop, retter; "
        "print(retter.__file__)"
    )
    found = run(installed.root / "opt/retter/bin/python3", "-B", "-c", code)
    assert found.startswith(str(installed.root))


def test_its_settings_are_those_of_the_declaration(installed: Installed) -> None:
    shown = run(
        *installed.command("--config", str(installed.root / "etc/retter.toml"), "--check-config")
    )
    assert re.search(r"^listen +\S+retter.toml: listen +:80$", shown, re.MULTILINE)
    assert re.search(r"^upstream +\S+retter.toml: upstream +:8080$", shown, re.MULTILINE)


def test_the_command_of_its_unit_serves_and_ends(
    installed: Installed, application: ApplicationProgram, programs: list[Program]
) -> None:
    unit = (installed.root / "lib/systemd/system/retter.service").read_text()
    words = shlex.split(re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)[0])
    assert words[0] == "/opt/retter/bin/retter"
    config = installed.root / "etc/retter.toml"
    config.write_text(
        config.read_text()
        .replace('listen = [":80"]', 'listen = ["127.0.0.1:0"]')
        .replace('upstream = ":8080"', f'upstream = "{application.upstream}"')
        .replace('#admin = "auto"', 'admin = "off"')
    )
    state = installed.root / "var/lib"
    (state / "retter").mkdir(mode=0o700)
    there = [
        word.replace("/etc/retter.toml", str(config)).replace("%S", str(state))
        for word in words[1:]
    ]
    program = Started(installed.command(*there))
    programs.append(program)
    assert fetch(program.port, "GET", "/page").status == 200
    store = state / "retter/store"
    eventually(lambda: any(store.iterdir()) if store.exists() else False, "it stores on disk")
    program.signal(signal.SIGTERM)
    assert program.wait() == 0
    installed.purge()
    assert installed.files() == set()
    assert not (state / "retter").exists()


def test_systemd_understands_its_units(installed: Installed) -> None:
    analyze = need("systemd-analyze", "systemd")
    for name in ("retter.service", "retter.socket"):
        shutil.copy(installed.root / "lib/systemd/system" / name, installed.root / name)
    done = subprocess.run(
        [analyze, "verify", "--man=no", *installed.root.glob("retter.s*")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    complaints = [line for line in done.stderr.splitlines() if "retter" in line]
    assert [line for line in complaints if "is not executable" not in line] == []
    assert "retter:" in (installed.root / "etc/passwd").read_text()


def test_the_manual_page_and_the_completions_are_there(installed: Installed) -> None:
    share = installed.root / "usr/share"
    for path in (
        "man/man1/retter.1.gz", "bash-completion/completions/retter",
        "zsh/vendor-completions/_retter", "fish/vendor_completions.d/retter.fish",
        "doc/retter/copyright", "doc/retter/README.Debian",
    ):  # fmt: skip
        assert (share / path).stat().st_size > 300, path
