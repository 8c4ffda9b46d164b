"""RETTER inside another program."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

import retter
from retter.breaker import Transition
from retter.config.settings import Settings
from retter.net.sockets import ListenError
from retter.process import running as module


def settings(tmp_path: Path, **more: Any) -> Settings:
    more.setdefault("listen", (f"unix:{tmp_path}/front",))
    return Settings(upstream=f"unix:{tmp_path}/back", **more)


def test_running_inside_another_program(tmp_path: Path) -> None:
    transitions: list[Transition] = []

    async def main() -> None:
        chosen = settings(tmp_path, listen=("127.0.0.1:0", f"unix:{tmp_path}/front"))
        async with retter.running(chosen, transitions.append) as proxy:
            assert proxy.address == proxy.addresses[0]
            assert proxy.address.startswith("http://127.0.0.1:")
            assert proxy.addresses[1] == f"unix:{tmp_path}/front"
            assert proxy.state == "CLOSED"
            proxy.set_circuit("open")
            assert proxy.state == "OPEN"
            with pytest.raises(ValueError, match="ajar"):
                proxy.set_circuit("ajar")
            assert proxy.stats()["connections"]["open"] == 0

    asyncio.run(main())
    assert transitions
    assert not (tmp_path / "front").exists()


def test_an_address_that_is_taken_leaves_nothing_open(tmp_path: Path) -> None:
    async def main(port: int) -> None:
        chosen = settings(tmp_path, listen=(f"unix:{tmp_path}/front", f"127.0.0.1:{port}"))
        with pytest.raises(ListenError):
            async with retter.running(chosen):
                raise AssertionError("it must not serve")

    with socket.create_server(("127.0.0.1", 0)) as other:
        asyncio.run(main(other.getsockname()[1]))
    assert not (tmp_path / "front").exists()


def test_the_admin_listener_leaves_the_application_its_port(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setattr(module, "ADMIN_DEFAULT", f"127.0.0.1:{port}")

    async def main() -> None:
        chosen = Settings(upstream=f":{port}", listen=(f"unix:{tmp_path}/front",))
        async with module.running(chosen, by_itself=True) as proxy:
            assert proxy.admin_address and not proxy.admin_address.endswith(f":{port}")

    asyncio.run(main())
