"""The peers of a crawl, set up against crawlers as a good administrator would."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.overload.peers import Haproxy, Nginx, Nothing, Peer, Retter, Varnish


class RetterOff(Retter):
    """RETTER with one queue for all."""

    name = "retter --fairness off"
    about = "one line for all"

    def command(
        self, listen: int, application: int, folder: Path, *, workers: int
    ) -> Sequence[str]:
        """Return its command line."""
        command = super().command(listen, application, folder, workers=workers)
        return (*command, "--fairness", "off")


class NginxLimited(Nginx):
    """Its cache, and a request a second for each address, ten at once: a page with its parts."""

    about = "proxy_cache 1 s, use_stale; limit_req 1r/s burst=10 nodelay by address"

    def command(
        self, listen: int, application: int, folder: Path, *, workers: int
    ) -> Sequence[str]:
        """Write nginx.conf."""
        command = super().command(listen, application, folder, workers=workers)
        path = folder / "nginx.conf"
        text = path.read_text()
        zone = "limit_req_zone $binary_remote_addr zone=one:10m rate=1r/s;\nupstream application"
        text = text.replace("upstream application", zone)
        text = text.replace(
            "location / {", "location / {\n    limit_req zone=one burst=10 nodelay;"
        )
        path.write_text(text)
        return command


class HaproxyLimited(Haproxy):
    """As many requests as there are places, and 429 for a client with more than 20 in 10 s."""

    about = "maxconn as the application has places; stick table: 429 above 20 in 10 s by address"

    def command(
        self, listen: int, application: int, folder: Path, *, workers: int
    ) -> Sequence[str]:
        """Write haproxy.cfg."""
        command = super().command(listen, application, folder, workers=workers)
        path = folder / "haproxy.cfg"
        rules = (
            "    stick-table type ip size 100k expire 30s store http_req_rate(10s)\n"
            "    http-request track-sc0 src\n"
            "    http-request deny deny_status 429 if { sc_http_req_rate(0) gt 20 }\n"
            "    server application"
        )
        path.write_text(path.read_text().replace("    server application", rules))
        return command


PEERS: Final[tuple[Peer, ...]] = (
    Retter(), RetterOff(), NginxLimited(), HaproxyLimited(), Varnish(), Nothing(),
)  # fmt: skip


def against_crawlers(peer: Peer) -> Peer:
    """Return the peer of that name as it is set up here."""
    return next(one for one in PEERS if one.name == peer.name)
