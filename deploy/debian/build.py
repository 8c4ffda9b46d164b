"""Build the Debian package: `make deb`.

The package is a virtual environment in /opt/retter on Debian's own Python, with the unit and the
socket for systemd, a user, a file of settings, the manual page and completion for the shells. It is
built with dpkg-deb from a folder; no other tool of packaging is needed.

    /usr/bin/python3 deploy/debian/build.py [--level 0..3|plain] [--output FOLDER]

Exit code 0 done, 1 a step failed (its output says why).
"""

import argparse
import gzip
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
SOURCE: Final = HERE.parents[1]
PREFIX: Final = Path("opt/retter")

# What a server uses: RETTER with the extras metrics, compress, store and shared, with hashes.
REQUIREMENTS: Final = SOURCE / "deploy/requirements.txt"

UNIT_FOLDER: Final = Path("lib/systemd/system")  # /lib is a link to /usr/lib in Debian 12
CONFFILES: Final = ("/etc/retter.toml",)

# The first page that its reader sees is the application's, on the port of the web.
LISTEN: Final = '\nlisten = [":80"]\n'

MACHINES: Final = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "armhf", "i686": "i386"}


def main() -> int:
    """Build the package, print its path, and return the exit code."""
    options = _parser().parse_args()
    version = _version()
    with tempfile.TemporaryDirectory(prefix="retter-deb-") as scratch:
        root = Path(scratch) / "root"
        _say("installing into a virtual environment")
        _environment(root, options.level)
        _say("adding units, manual page and completion")
        _units(root)
        _documentation(root, version)
        _settings_and_completion(root)
        _control(root, version)
        _permissions(root)
        options.output.mkdir(parents=True, exist_ok=True)
        package = options.output / f"retter_{version}_{_machine()}.deb"
        _say("packing")
        _run("dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(root), str(package))
    sys.stdout.write(f"{package}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Build the Debian package of RETTER.")
    parser.add_argument(
        "--level",
        default="3",
        choices=("plain", "0", "1", "2", "3"),
        help="compile a request's way at this level of optimisation, which takes a C compiler and "
        "two minutes; plain does not compile (default 3)",
    )
    parser.add_argument(
        "--output", type=Path, default=SOURCE / "dist", help="folder of the package (default dist)"
    )
    return parser


def _say(text: str) -> None:
    sys.stderr.write(f"retter.deb: {text} ...\n")


def _run(*command: str, environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | (environment or {})
    )
    if done.returncode:
        sys.stderr.write(done.stdout + done.stderr)
        sys.exit(f"retter.deb: {command[0]} failed")


def _version() -> str:
    found: dict[str, str] = {}
    exec((SOURCE / "retter/_version.py").read_text(), found)
    # Debian's order of versions: a ~ stands before nothing, so that rc1 is older than the release.
    return found["VERSION"].replace("rc", "~rc").replace(".dev", "~dev")


def _machine() -> str:
    machine = os.uname().machine
    return MACHINES.get(machine, machine)


def _environment(root: Path, level: str) -> None:
    """Install RETTER and what it needs. The environment knows only its place when installed."""
    packages = root / PREFIX / "lib" / _python() / "site-packages"
    packages.mkdir(parents=True)
    compile_level = {} if level == "plain" else {"COMPILE_RETTER": level}
    with tempfile.TemporaryDirectory(prefix="retter-venv-") as tools:
        source = _copy_of_source(Path(tools))
        _run(sys.executable, "-m", "venv", tools)
        pip = [f"{tools}/bin/python", "-m", "pip", "--disable-pip-version-check", "-q"]
        install = [*pip, "install", "--no-compile", "--target", str(packages)]
        _run(*install, "--require-hashes", "-r", str(REQUIREMENTS))
        _run(*install, "--no-deps", str(source), environment=compile_level)
    shutil.rmtree(packages / "bin", ignore_errors=True)
    for record in packages.glob("*.dist-info/direct_url.json"):
        record.unlink()  # where it was built concerns nobody
    programs = root / PREFIX / "bin"
    programs.mkdir()
    (programs / "python3").symlink_to("/usr/bin/python3")
    (programs / "python").symlink_to("python3")
    script = programs / "retter"
    script.write_text(
        f"#!/{PREFIX}/bin/python3\nimport sys\n\n"
        "from retter.__main__ import main\n\nsys.exit(main())\n"
    )
    (root / PREFIX / "pyvenv.cfg").write_text(
        "home = /usr/bin\ninclude-system-site-packages = false\n"
    )
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/retter").symlink_to(f"/{PREFIX}/bin/retter")
    for library in packages.rglob("*.so"):
        _run("strip", "--strip-unneeded", str(library))


def _copy_of_source(folder: Path) -> Path:
    # A build in place would leave files there, and take up those of an earlier build.
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(SOURCE / name, source)
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(SOURCE / "retter", source / "retter", ignore=ignored)
    return source


def _python() -> str:
    return f"python{sys.version_info.major}.{sys.version_info.minor}"


def _units(root: Path) -> None:
    units = root / UNIT_FOLDER
    _copy(SOURCE / "deploy/retter.service", units / "retter.service")
    _copy(SOURCE / "deploy/retter.socket", units / "retter.socket")
    _copy(HERE / "user.conf", units / "retter.service.d/user.conf")
    _copy(HERE / "sysusers.conf", root / "usr/lib/sysusers.d/retter.conf")


def _documentation(root: Path, version: str) -> None:
    pages = root / "usr/share/man/man1/retter.1.gz"
    pages.parent.mkdir(parents=True)
    pages.write_bytes(gzip.compress((SOURCE / "docs/man/retter.1").read_bytes(), 9, mtime=0))
    folder = root / "usr/share/doc/retter"
    _copy(HERE / "README.Debian", folder / "README.Debian")
    _copy(SOURCE / "LICENSE", folder / "copyright")
    changes = (SOURCE / "CHANGELOG.md").read_bytes()
    (folder / "changelog.gz").write_bytes(gzip.compress(changes, 9, mtime=0))


def _settings_and_completion(root: Path) -> None:
    program = root / PREFIX / "bin/retter"
    settings = _output(program, "config", "init")
    file = root / "etc/retter.toml"
    file.parent.mkdir()
    file.write_text(settings.replace('\n#listen = [":8089"]\n', LISTEN))
    for shell, path in {
        "bash": "bash-completion/completions/retter",
        "zsh": "zsh/vendor-completions/_retter",
        "fish": "fish/vendor_completions.d/retter.fish",
    }.items():
        script = root / "usr/share" / path
        script.parent.mkdir(parents=True)
        script.write_text(_output(program, "completion", shell))


def _output(program: Path, *arguments: str) -> str:
    # Its first line names a Python that is there only when it is installed.
    command = [str(program.parent / "python3"), "-B", str(program), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _control(root: Path, version: str) -> None:
    folder = root / "DEBIAN"
    folder.mkdir()
    major, minor = sys.version_info[:2]
    text = (HERE / "control").read_text()
    fields = {
        "VERSION": version,
        "MACHINE": _machine(),
        "PYTHON": f"python3 (>= {major}.{minor}), python3 (<< {major}.{minor + 1})",
        "KILOBYTES": str(sum(f.lstat().st_size for f in root.rglob("*") if f.is_file()) // 1024),
    }
    for name, value in fields.items():
        text = text.replace(f"@{name}@", value)
    (folder / "control").write_text(text)
    (folder / "conffiles").write_text("".join([f"{path}\n" for path in CONFFILES]))
    for script in ("postinst", "prerm", "postrm"):
        _copy(HERE / script, folder / script)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _permissions(root: Path) -> None:
    programs = {root / PREFIX / "bin/retter", *(root / "DEBIAN").glob("p*")}
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path in programs else 0o644)


if __name__ == "__main__":
    sys.exit(main())
