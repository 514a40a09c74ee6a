"""The desired-state process: follows every source and sends the changes of its snapshot to the daemon.

It is a separate process because of latency. Parsing YAML in the process of the watches cost 38 ms at the median, a
separate process cost 1.5 ms. Each source has its own thread, so a hanging remote delays no other source. After a start
the daemon needs a snapshot soon. When Git does not answer at once, the mirror on disk serves.
"""

import os
import sys
import threading
import time
from typing import BinaryIO

from driftwatch import memory
from driftwatch.desired import protocol
from driftwatch.desired.follower import Follower, FrameWriter
from driftwatch.desired.protocol import Alive, Poll, Resend, Surround, Watch
from driftwatch.git import runner
from driftwatch.source_spec import ClusterCapabilities, SourceSpec

NICENESS = 10
"""Niceness of this process. Reading Git and rendering can wait, reconciling cannot: when both compete for a core, the
daemon gets it. Git and the rendering tools inherit the value."""


class Process:
    """Holds the followers and passes the daemon's messages to them."""

    def __init__(self, stdin: BinaryIO, stdout: BinaryIO) -> None:
        self._stdin = stdin
        self._outlet = FrameWriter(stdout)
        self._followers: dict[str, Follower] = {}
        self._surroundings = ClusterCapabilities()

    def run(self) -> None:
        """Process the daemon's messages until it closes the pipe."""
        threading.Thread(target=self._say_alive, name="alive", daemon=True).start()
        while (payload := protocol.read_payload(self._stdin)) is not None:
            match protocol.decode_to_process(payload):
                case Watch(sources, generations):
                    self._watch(sources, generations)
                case Resend(source):
                    if source in self._followers:
                        self._followers[source].resend()
                case Surround(surroundings):
                    self._surroundings = surroundings
                    for follower in self._followers.values():
                        follower.surround(surroundings)
                case Poll(source) if source in self._followers:
                    self._followers[source].poll()
                case Poll():
                    pass  # the source was just dropped
        for follower in self._followers.values():
            follower.stop()

    def _watch(self, sources: list[SourceSpec], generations: dict[str, int]) -> None:
        before, self._followers = self._followers, {}
        for spec in sources:
            old = before.pop(spec.name, None)
            generation = generations.get(spec.name, 0)
            if old is not None and old.spec == spec and old.generation == generation:
                self._followers[spec.name] = old
                continue
            if old is not None:
                old.stop()
            follower = Follower(spec, self._outlet, old, self._surroundings, generation)
            self._followers[spec.name] = follower
            follower.start()
        for dropped in before.values():
            dropped.stop()

    def _say_alive(self) -> None:
        while True:
            self._outlet.send(Alive())
            time.sleep(protocol.ALIVE_SECONDS)


def main() -> None:
    """Run as the daemon's child. Frames go over stdin and stdout, all other output goes to stderr."""
    memory.configure_malloc()
    frames = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    runner.forget_inherited_repository()
    os.nice(NICENESS)
    Process(sys.stdin.buffer, frames).run()
    os._exit(0)
