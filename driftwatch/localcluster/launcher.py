"""Execs a program that the kernel kills when the program's parent ends.

Run by path, with an interpreter that loads nothing else: `python -I -S launcher.py PARENT_PID PROGRAM [ARGUMENT...]`.
A separate process is needed because the child has to make the prctl request itself. Making it between fork and exec
in a process with threads (`preexec_fn`) can deadlock.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(parent: int, command: list[str]) -> None:
    """Bind this process's life to `parent`, then exec `command`."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
        if os.getppid() != parent:  # it ended before the prctl call, so no signal will come
            sys.exit("the process that started this one is gone")
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
