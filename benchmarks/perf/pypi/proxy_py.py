"""The plugin that makes proxy.py forward everything to the application."""

# pyright: basic, reportMissingImports=false
# mypy: ignore-errors
import os

from proxy.http import Url
from proxy.http.server import ReverseProxyBasePlugin

APPLICATION = os.environ["BENCHMARK_APPLICATION"].encode()


class ForwardAll(ReverseProxyBasePlugin):
    """One route."""

    def routes(self):
        """Take every path."""
        return [r"/.*$"]

    def handle_route(self, request, pattern):
        """Keep the path."""
        return Url.from_bytes(b"http://" + APPLICATION + request.path)
