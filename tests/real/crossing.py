"""A crossing on the way to a server: its connections can be frozen or reset, and led elsewhere."""

import contextlib
import selectors
import socket
import struct
import threading

READ_BYTES = 65_536
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset


class Crossing:
    """Listens on a port of loopback and passes on what comes."""

    def __init__(self, target: int) -> None:
        self.target = target  # where new connections lead to
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._frozen: list[socket.socket] = []
        self._selector = selectors.DefaultSelector()
        self._waker, self._waked = socket.socketpair()
        self._selector.register(self._waked, selectors.EVENT_READ)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    # -- what a test does

    def freeze(self) -> None:
        """No octet comes through on the present connections any more, and nobody is told."""
        with self._lock:
            for pair in self._take():
                self._frozen += pair

    def reset(self) -> None:
        """Reset the present connections, on both sides."""
        with self._lock:
            for pair in self._take():
                for sock in pair:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    sock.close()

    def close(self) -> None:
        self._waker.close()
        self._thread.join()
        with self._lock:
            for pair in self._take():
                self._frozen += pair
        for sock in (*self._frozen, self._listener, self._waked):
            sock.close()
        self._selector.close()

    # -- the thread

    def _take(self) -> list[tuple[socket.socket, socket.socket]]:
        pairs, self._pairs = self._pairs, []
        for sock in [sock for pair in pairs for sock in pair]:
            self._selector.unregister(sock)
        return pairs

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._waked:
                    return
                with self._lock:
                    if key.fileobj is self._listener:
                        self._accept()
                    else:
                        self._pass_on(key.fd)

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        try:
            far = socket.create_connection(("127.0.0.1", self.target))
        except OSError:
            near.close()
            return
        self._pairs.append((near, far))
        for sock in (near, far):
            self._selector.register(sock, selectors.EVENT_READ)

    def _pass_on(self, fd: int) -> None:
        for pair in self._pairs:
            for one, other in (pair, pair[::-1]):
                if one.fileno() == fd:
                    self._pass(pair, one, other)
                    return

    def _pass(
        self,
        pair: tuple[socket.socket, socket.socket],
        one: socket.socket,
        other: socket.socket,
    ) -> None:
        data = b""
        with contextlib.suppress(OSError):
            data = one.recv(READ_BYTES)
            other.sendall(data)
            if data:
                return
        self._pairs.remove(pair)
        for sock in pair:
            self._selector.unregister(sock)
            sock.close()
