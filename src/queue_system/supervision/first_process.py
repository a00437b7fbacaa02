"""The tasks of a container's first process: it passes signals on and waits for orphans."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Final

FIRST: Final = 1
"""The id of a container's first process."""

_PASSED_ON: Final = frozenset(
    {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
)
_FROM_A_PROCESS: Final = 0
"""The greatest `si_code` of a signal that a process sent; what a terminal sends reaches its whole group by itself."""


def waiting_for_orphans(work: Callable[[], int]) -> int:
    """Run `work` in a forked child, wait for all that is orphaned meanwhile, and return the child's exit code.

    A process whose parent has died becomes a child of the first process, and stays as a zombie until that waits for it.
    Call it before threads are started; Linux only.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_PASSED_ON, signal.SIGCHLD})
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return work()
    while True:
        happened = signal.sigwaitinfo({*_PASSED_ON, signal.SIGCHLD})
        if happened.si_signo == signal.SIGCHLD:
            if (code := _wait_for_all(child)) is not None:
                return code
        elif happened.si_code <= _FROM_A_PROCESS:
            os.kill(child, happened.si_signo)


def _wait_for_all(child: int) -> int | None:
    """Wait for whatever has ended; return the exit code of `child` if it is among that."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == child:
            ended = os.waitstatus_to_exitcode(status)
            code = ended if ended >= 0 else 128 - ended
