"""The child's side of `processes`: runs one function after another for its worker. Never talks to Redis."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import socket
import sys
import threading
import time
from queue import SimpleQueue
from types import FrameType
from typing import Any

import msgspec

from queue_system.errors import UnresolvableNameError, UnserializableError, cut_text
from queue_system.execution.runners.children import Child
from queue_system.execution.runners.processes import BEGINS, LAST_WORDS_S, Answer, Request
from queue_system.model.entity import encode_entity
from queue_system.model.isolation import process_reference
from queue_system.model.lazy import finished
from queue_system.tracebacks import trace


def main(descriptor: int) -> None:
    """Serve the requests that come through a socket until its other end hangs up."""
    Servant(Child.adopt(descriptor)).serve()


class Servant:
    """Runs functions in the main thread while another thread listens."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._requests: SimpleQueue[bytes] = SimpleQueue()
        self._busy = threading.Event()
        self._leaving = False

    def serve(self) -> None:
        """Answer one request after another; return when there will be none."""
        signal.signal(signal.SIGTERM, self._terminated)
        threading.Thread(target=self._listen, name="queue-system-listener", daemon=True).start()
        encode = msgspec.json.Encoder().encode
        decode = msgspec.json.Decoder(Request).decode
        while line := self._requests.get():
            answer = self._run(decode(line))
            self._busy.clear()
            with contextlib.suppress(OSError):  # the worker is gone
                self._channel.sendall(encode(answer) + b"\n")

    def _run(self, request: Request) -> Answer:
        try:
            function = _find(request.module, request.name)
            self._channel.sendall(BEGINS)
            result = finished(function(request.entity))
        except BaseException as error:
            if self._leaving:
                raise
            found = trace(error)
            return Answer(error=cut_text(found.message), error_type=found.kind, traceback=found.text)
        try:
            return Answer(result=encode_entity(result, field="result").decode())
        except UnserializableError as error:
            return Answer(result_error=cut_text(str(error)))

    def _listen(self) -> None:
        with self._channel.makefile("rb") as lines:
            for line in lines:
                self._busy.set()
                self._requests.put(line)
        self._requests.put(b"")
        if self._busy.is_set():  # the worker has died, or wants the result no more
            os.killpg(0, signal.SIGTERM)
            time.sleep(LAST_WORDS_S)
            os.killpg(0, signal.SIGKILL)

    def _terminated(self, number: int, _frame: FrameType | None) -> None:
        """Leave if the worker has hung up. A service manager may signal all at once: what runs then goes on."""
        try:
            hung_up = not self._channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            hung_up = True
        if hung_up and not self._leaving:
            self._leaving = True
            sys.exit(128 + number)


def _find(module: str, name: str) -> Any:
    fn = vars(importlib.import_module(module)).get(name)
    if fn is None or process_reference(fn) is None:
        raise UnresolvableNameError(f"{module}.{name} is not marked by run_in_process where the child process finds it")
    return fn
