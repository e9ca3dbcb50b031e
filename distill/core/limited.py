"""Run a function of a stranger's program in a child process with limits of time and memory."""

import os
import resource
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path

EXTRA_MEMORY = 2**30  # bytes beyond those of this process
STATM = Path("/proc/self/statm")  # Linux; elsewhere memory is not limited


def run_limited(function: Callable[[], None], seconds: float) -> str | None:
    """Call the function in a fork of this process; None if it returns, otherwise why it does not.

    The reason is the text of its exception, or a limit that it passed. Nothing that the
    function changes is seen here.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        _child(function, write)
    os.close(write)
    answer, deadline = b"", time.monotonic() + seconds
    try:
        while select.select([read], [], [], max(0.0, deadline - time.monotonic()))[0]:
            part = os.read(read, 65536)
            if not part:
                break
            answer += part
        else:
            return f"more than {seconds:g} s of time"
    finally:
        os.close(read)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    if not answer:
        return "a crash"
    return answer[1:].decode(errors="replace") or None


def _child(function: Callable[[], None], write: int) -> None:
    """Never returns: writes a byte and the reason, and ends the process."""
    reason = ""
    try:
        if STATM.exists():
            size = int(STATM.read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + EXTRA_MEMORY, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        function()
    except MemoryError:
        reason = "more than 1 GiB of memory"
    except BaseException as error:  # noqa: BLE001  # the parent says it
        reason = str(error).strip() or type(error).__name__
    finally:
        try:
            os.write(write, b"." + reason.encode(errors="replace")[:4000])
        finally:
            os._exit(0)
