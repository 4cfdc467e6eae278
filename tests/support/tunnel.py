"""A tunnel to a server, such as ssh's, that can be cut."""

import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit


class Tunnel:
    """Passes on what it is sent, between a port of its own and the address of a server."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self._there = (str(parts.hostname), int(parts.port or 80))
        self._server = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.address = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End all connections; new ones are welcome."""
        for end in self._open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def close(self) -> None:
        self._server.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(self._there)
                self.connections += 1
                self._open += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=_pass_on, args=(one, other), daemon=True).start()


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError):
        while chunk := one.recv(2**16):
            other.sendall(chunk)
    with suppress(OSError):
        other.shutdown(socket.SHUT_WR)
