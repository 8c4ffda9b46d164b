"""RETTER: a circuit-breaking reverse proxy for one web application.

Inside another program, a load-testing harness for example::

    async with retter.running(retter.Settings(upstream=":8080", listen="127.0.0.1:0")) as proxy:
        ...  # proxy.address, proxy.stats(), proxy.set_circuit("open")
"""

from typing import TYPE_CHECKING, Any

from retter._version import VERSION as __version__

if TYPE_CHECKING:
    from retter.config import Settings
    from retter.server import RunningProxy, running

__all__ = ["RunningProxy", "Settings", "__version__", "running"]


def __getattr__(name: str) -> Any:
    # Imported when asked for, so that `retter --help` does not pay for the server.
    if name == "Settings":
        from retter.config import Settings

        return Settings
    if name in ("RunningProxy", "running"):
        from retter import server

        return getattr(server, name)
    raise AttributeError(f"module 'retter' has no attribute {name!r}")
