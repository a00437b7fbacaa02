"""TCP servers that are none of Redis: one says nothing, one quotes what it is given. Never keeps what it hears."""

from __future__ import annotations

import contextlib
import socketserver
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def serving(handler: type[socketserver.BaseRequestHandler]) -> Iterator[int]:
    """Serve every connection in a thread of its own, and give the port of 127.0.0.1."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            thread.join()


class SilentServer(socketserver.BaseRequestHandler):
    """Accepts connections and never answers."""

    def handle(self) -> None:
        while self.request.recv(4096):
            pass


class QuotingServer(socketserver.StreamRequestHandler):
    """Knows no command, and quotes what it was given."""

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            while head := self.rfile.readline():
                self.wfile.write(self.answer([self._read_word() for _ in range(int(head[1:]))]))

    def _read_word(self) -> bytes:
        length = int(self.rfile.readline()[1:])
        return self.rfile.read(length + 2)[:-2]

    def answer(self, words: list[bytes]) -> bytes:
        """What it says to a command."""
        quoted = b" ".join(b"'%b'" % word for word in words[1:])
        return b"-ERR unknown command '%b', with args beginning with: %b\r\n" % (words[0], quoted)
