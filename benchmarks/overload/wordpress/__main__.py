"""`make wordpress`: a WordPress to try RETTER on, until Ctrl-C."""

import argparse
import signal
import sys
import tempfile
from itertools import chain
from pathlib import Path

from benchmarks.overload.peers import StartFailed, free_port
from benchmarks.overload.wordpress import PACKAGES, WordPress, missing


def main() -> int:
    """Run it and return the exit code."""
    parser = argparse.ArgumentParser(prog="make wordpress", description=__doc__)
    parser.add_argument("--port", type=int, default=8080, help="of 127.0.0.1 (default 8080)")
    options = parser.parse_args()
    if name := missing():
        sys.stderr.write(f"{name} is not installed; on Debian: apt install {PACKAGES}\n")
        return 1
    ports = chain([options.port], iter(free_port, 0))
    with tempfile.TemporaryDirectory(prefix="retter-wordpress-") as folder:
        site = WordPress(Path(folder), lambda: next(ports))
        try:
            # Either signal ends it by way of `finally`.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            site.start(lambda step: _say(f"{step} ..."))
            _say(f"WordPress: http://127.0.0.1:{site.port}")
            _say("Its administrator: user admin, password: a password for a trial")
            _say(f"Its database is process {site.database.pid}. Ctrl-C ends all.")
            signal.pause()
        except StartFailed as error:
            sys.stderr.write(f"{error}\n")
            return 1
        except KeyboardInterrupt:
            _say("ending")
        finally:
            site.stop()
    return 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
