"""A test that measures time has the machine for itself."""

import fcntl
import threading
from pathlib import Path

from tests.support.alone import Machine
from tests.support.waiting import until


def test_alone_waits_for_the_others_and_lets_no_other_begin(tmp_path: Path) -> None:
    """It begins when those that run have ended, and before those that come later."""
    began: list[str] = []
    leave = threading.Event()

    def hold(name: str, *, alone: bool = False) -> threading.Thread:
        def body() -> None:
            with Machine(tmp_path).held(alone=alone):
                began.append(name)
                if not alone:
                    leave.wait(20)

        thread = threading.Thread(target=body)
        thread.start()
        return thread

    threads = [hold("first"), hold("second")]
    until(lambda: len(began) == 2, "both run side by side")
    threads.append(hold("alone", alone=True))
    until(lambda: _is_shut(tmp_path), "the gate is shut")
    threads.append(hold("later"))
    assert sorted(began) == ["first", "second"]

    leave.set()
    for thread in threads:
        thread.join(20)

    assert began[2:] == ["alone", "later"]


def _is_shut(folder: Path) -> bool:
    """Whether somebody waits to be alone."""
    with (folder / "alone.gate").open("w") as gate:
        try:
            fcntl.flock(gate, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
