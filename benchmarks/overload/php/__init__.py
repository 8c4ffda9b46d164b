"""A real application: a small PHP shop, php-fpm with 8 workers, nginx in front of it by FastCGI.

The shop starts a session for everyone, as most do that ever call session_start(): each answer, page
or not, carries `Set-Cookie: PHPSESSID=...` and PHP's own `Cache-Control: no-store`. The clients of
the load generator return no cookie, so each request is a new visitor's, who may be given any page
that was fetched without a cookie. RETTER stores these pages, in memory only, and never their
Set-Cookie: who is answered from the store gets no session until a fresh answer or a POST brings
one. A cache that follows those fields, as nginx's and Varnish's do, stores none of these pages.

The capacity is measured before the trial: 8 workers by the mean time of an answer when 8
connections ask again at once. It leaves out that a worker in overload need not wait for the next
request to arrive, so a goodput a little above 100 % is possible.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.overload.applications import Application
from benchmarks.overload.fastcgi import FastCgi, closed_loop
from benchmarks.overload.peers import cores
from benchmarks.overload.scenarios import CONNECTIONS, SERVICE_MS

SCRIPT: Final = Path(__file__).parent / "shop.php"
COUNTS: Final = ("gets", "posts", "answered")
CALIBRATION_S: Final = 10.0  # 1600 exponential times: their mean is off by 2.5 % (one sigma)
WARM_UP_S: Final = 1.0  # before it: the script is compiled once


class PhpShop(Application):
    """The two programs, and the capacity that was measured when they had come up."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "php"
        self._capacity = 0.0
        self._programs = FastCgi(
            self._folder,
            SCRIPT,
            workers=CONNECTIONS,
            params={"SHOP_COUNTS": f"{self._folder}/counts", "SHOP_SERVICE_MS": f"{SERVICE_MS}"},
            ini={"session.save_path": f"{self._folder}/sessions", "display_errors": "stderr"},
            core=cores()[1],
        )

    @property
    def capacity(self) -> float:
        """The requests a second that it was seen to make, with every worker busy."""
        return self._capacity

    def start(self) -> None:
        """Start both and measure the capacity. Raises StartFailed."""
        for name in ("sessions", "counts"):
            (self._folder / name).mkdir(parents=True)
        self._programs.start(f"{self.page}1")
        self.port = self._programs.port
        closed_loop(self.port, self.page, CONNECTIONS, WARM_UP_S)
        times = closed_loop(self.port, self.page, CONNECTIONS, CALIBRATION_S)
        self._capacity = CONNECTIONS * len(times) / sum(times)

    def stop(self) -> None:
        """End both."""
        self._programs.stop()

    def turn(self, knobs: Mapping[str, Any]) -> None:
        """Refuse: it has no knobs."""
        raise ValueError(f"the PHP shop has no knobs: {', '.join(knobs)}")

    def count_anew(self) -> None:
        """Let the counts start from here; php-fpm's own go on."""
        for name in COUNTS:
            (self._folder / "counts" / name).write_bytes(b"")

    def stats(self) -> dict[str, Any]:
        """Return the shop's counts, and php-fpm's since its start."""
        counts = {name: (self._folder / "counts" / name).stat().st_size for name in COUNTS}
        return {**counts, "capacity": self._capacity, "php_fpm": self._programs.status()}

    def cpu_s(self) -> float:
        """Return the processor seconds both have used."""
        return self._programs.cpu_s()
