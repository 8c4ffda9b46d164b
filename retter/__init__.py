"""RETTER: a circuit-breaking reverse proxy for one web application.

Inside another program, a load-testing harness for example::

    settings = retter.Settings(upstream=":8080", listen=("127.0.0.1:0",))
    async with retter.running(settings) as proxy:
        ...  # proxy.address, proxy.stats(), proxy.set_circuit("open")

What `__all__` names is the public interface. Everything else may change between two releases.
"""

from typing import TYPE_CHECKING, Any

from retter._version import VERSION as __version__

if TYPE_CHECKING:
    from retter.breaker import Transition
    from retter.config.settings import ConfigError, Settings
    from retter.net.sockets import ListenError
    from retter.process.running import RunningProxy, running

__all__ = [
    "ConfigError",
    "ListenError",
    "RunningProxy",
    "Settings",
    "Transition",
    "__version__",
    "running",
]

# Imported when asked for, so that `retter --help` does not pay for the proxy.
_HOME = {
    "ConfigError": "retter.config.settings",
    "ListenError": "retter.net.sockets",
    "RunningProxy": "retter.process.running",
    "Settings": "retter.config.settings",
    "Transition": "retter.breaker",
    "running": "retter.process.running",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'retter' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
