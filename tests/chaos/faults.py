"""What goes wrong: each fault is a context, in which it is so; leaving it, it is mended.

Faults overlap, so none takes for granted that a process runs, and none waits for what another may have broken.
"""

import contextlib
import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

import urllib3
from driftwatch.localcluster import Component, StateError

from tests.chaos.load import NAMESPACE
from tests.chaos.stage import Stage
from tests.property.kinds import widget_crd
from tests.support import faults as between
from tests.support.api_request import EVERYTHING, Where, watches, writes
from tests.support.fault_proxy import Door
from tests.support.live import Manifest
from tests.support.manifests import namespace_of

Begin = Callable[[Stage, random.Random], AbstractContextManager[str]]

LONGEST = 6.0  # seconds that a fault lasts
MINUTE, HOUR, DAY = 60, 3600, 86400
KEPT_FREE = 2  # descriptors, so that what is open can go on


class Fault(NamedTuple):
    """A fault by its name, and how to bring it about; the context says what was done.

    Those of the `core` are part of every run, however short. One that `rewinds` takes away what controllers wrote.
    """

    name: str
    begin: Begin
    core: bool = False
    rewinds: bool = False


# --- Processes ---


@contextmanager
def _daemon_killed(stage: Stage, chance: random.Random) -> Iterator[str]:
    down = chance.uniform(0.0, 2.0)
    stage.supervisor.kill()
    try:
        yield f"down for {down:.1f} s at least"
        time.sleep(down)
    finally:
        stage.supervisor.allow()


@contextmanager
def _daemon_stopped(stage: Stage, _chance: random.Random) -> Iterator[str]:
    stage.supervisor.stop()
    try:
        yield "by SIGTERM"
    finally:
        stage.supervisor.allow()


@contextmanager
def _suspended(pid: int | None) -> Iterator[str]:
    if pid is None:
        yield "it does not run"
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
    try:
        yield "by SIGSTOP"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _daemon_suspended(stage: Stage, _chance: random.Random) -> AbstractContextManager[str]:
    return _suspended(stage.supervisor.pid)


def _desired_suspended(stage: Stage, _chance: random.Random) -> AbstractContextManager[str]:
    return _suspended(stage.desired_process())


@contextmanager
def _desired_killed(stage: Stage, _chance: random.Random) -> Iterator[str]:
    pid = stage.desired_process()
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    yield "by SIGKILL" if pid else "it does not run"


def _killed(component: Component) -> Begin:
    @contextmanager
    def begin(stage: Stage, chance: random.Random) -> Iterator[str]:
        down = chance.choice((0.0, chance.uniform(0.0, 3.0)))
        stage.kill(component)
        try:
            yield f"down for {down:.1f} s at least"
            time.sleep(down)
        finally:
            stage.start(component)

    return begin


@contextmanager
def _etcd_suspended(stage: Stage, _chance: random.Random) -> Iterator[str]:
    with contextlib.suppress(StateError):
        stage.cluster.kill(Component.ETCD, signal.SIGSTOP)
    try:
        yield "by SIGSTOP"
    finally:
        with contextlib.suppress(StateError):
            stage.cluster.kill(Component.ETCD, signal.SIGCONT)


# --- The store ---


@contextmanager
def _compacted(stage: Stage, _chance: random.Random) -> Iterator[str]:
    try:
        stage.store.compact()
    except OSError as error:
        yield f"etcd does not answer: {error}"
    else:
        yield "history is gone"


@contextmanager
def _restored(stage: Stage, chance: random.Random) -> Iterator[str]:
    backup = stage.folder / "backup"
    is_old = backup.exists() and chance.random() < 0.3
    if not is_old and not _back_up(stage, backup):
        yield "etcd does not run, there is no backup"
        return
    try:
        yield "to one of an earlier time" if is_old else "to what is there now"
    finally:
        stage.store.restore(backup)


def _back_up(stage: Stage, backup: Path) -> bool:
    shutil.rmtree(backup, ignore_errors=True)
    try:
        stage.store.backup(backup)
    except (StateError, OSError):
        shutil.rmtree(backup, ignore_errors=True)
        return False
    return True


def _deleted(what: Manifest) -> Begin:
    """Somebody deletes what others are in, or of: the API server takes its time to finish that."""

    @contextmanager
    def begin(stage: Stage, _chance: random.Random) -> Iterator[str]:
        try:
            code, _ = stage.live.request("DELETE", stage.live.path(what))
        except urllib3.exceptions.HTTPError:
            yield "nobody answers"
        else:
            yield f"answered by {code}"

    return begin


# --- The network ---


def _door(door: Door) -> Begin:
    @contextmanager
    def begin(stage: Stage, _chance: random.Random) -> Iterator[str]:
        stage.proxy.door = door
        try:
            yield f"{stage.proxy.cut()} connections cut"
        finally:
            stage.proxy.door = Door.OPEN

    return begin


@contextmanager
def _cut(stage: Stage, _chance: random.Random) -> Iterator[str]:
    yield f"{stage.proxy.cut()} connections cut"


def _between(make: Callable[[random.Random], between.Fault], where: Where = EVERYTHING) -> Begin:
    """Something that the proxy does, for as long as the fault lasts or a few times."""

    @contextmanager
    def begin(stage: Stage, chance: random.Random) -> Iterator[str]:
        times = chance.choice((None, 1, 3, 10))
        injection = stage.proxy.inject(make(chance), where, times=times)
        try:
            yield f"{times} times" if times else "until it is lifted"
        finally:
            stage.proxy.lift(injection)

    return begin


# --- The daemon's own machine ---


@contextmanager
def _disk_full(stage: Stage, _chance: random.Random) -> Iterator[str]:
    if stage.disk is None:
        yield "not here: no small disk can be mounted"
        return
    ballast = stage.disk / "ballast"
    try:
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while file.write(bytes(2**16)):
                pass
        yield f"with {ballast.stat().st_size} bytes"
    finally:
        ballast.unlink(missing_ok=True)


@contextmanager
def _clock_jumps(stage: Stage, chance: random.Random) -> Iterator[str]:
    if stage.clock is None:
        yield "not here: no C compiler"
        return
    far = chance.choice((-400 * DAY, -2 * HOUR, -5 * MINUTE, -3, 3, 5 * MINUTE, 20 * HOUR, 400 * DAY))
    stage.clock.jump(far)
    try:
        yield f"by {far} s"
    finally:
        stage.clock.jump(0)


@contextmanager
def _no_descriptors(stage: Stage, _chance: random.Random) -> Iterator[str]:
    pid = stage.supervisor.pid
    if pid is None:
        yield "the daemon does not run"
        return
    try:
        used = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + KEPT_FREE, _hard_limit(pid)))
    except OSError:  # it has just ended
        yield "the daemon does not run"
        return
    try:
        yield f"beyond {used + KEPT_FREE}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def _hard_limit(pid: int) -> int:
    return resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]


FAULTS = (
    Fault("daemon killed", _daemon_killed, core=True),
    Fault("daemon stopped", _daemon_stopped),
    Fault("daemon suspended", _daemon_suspended),
    Fault("desired-state process killed", _desired_killed, core=True),
    Fault("desired-state process suspended", _desired_suspended),
    Fault("kube-apiserver killed", _killed(Component.APISERVER), core=True),
    Fault("etcd killed", _killed(Component.ETCD), core=True),
    Fault("etcd suspended", _etcd_suspended),
    Fault("kube-controller-manager killed", _killed(Component.CONTROLLER_MANAGER)),
    Fault("etcd compacted", _compacted),
    Fault("etcd restored from a backup", _restored, rewinds=True),
    Fault("namespace deleted", _deleted(namespace_of(NAMESPACE)), rewinds=True),
    Fault("definition of widgets deleted", _deleted(widget_crd()), rewinds=True),
    Fault("connections cut", _cut, core=True),
    Fault("connections refused", _door(Door.REFUSED)),
    Fault("connections silent", _door(Door.SILENT)),
    Fault("TLS handshakes broken", _door(Door.NO_HANDSHAKE)),
    Fault("certificate of a stranger", _door(Door.WRONG_CERTIFICATE)),
    Fault("everything stalls", _between(lambda _: between.Stall())),
    Fault("watches forgotten on the way", _between(lambda _: between.Stall(dead=True), watches())),
    Fault("watches cut", _between(lambda _: between.Cut(), watches())),
    Fault("watches ended", _between(lambda _: between.End(), watches())),
    Fault("watches told 410", _between(lambda _: between.ErrorEvent(410), watches())),
    Fault("watches told 500", _between(lambda _: between.ErrorEvent(500), watches())),
    Fault("garbage in watches", _between(lambda chance: between.Garbage(framed=chance.random() < 0.5), watches())),
    Fault("half a line", _between(lambda chance: between.HalfLine(clean=chance.random() < 0.5), watches())),
    Fault("events twice", _between(lambda _: between.Duplicate(), watches())),
    Fault("latency", _between(lambda chance: between.Latency(chance.uniform(0.01, 0.5)))),
    Fault("answers lost", _between(lambda _: between.LoseAnswer(), writes())),
    Fault("requests lost", _between(lambda _: between.LoseRequest())),
    Fault("answers cut", _between(lambda _: between.CutAnswer())),
    Fault("answers refused", _between(lambda chance: between.Refuse(chance.choice((429, 500, 503)), 1))),
    Fault("requests unauthorized", _between(lambda _: between.Refuse(401))),
    Fault("disk full", _disk_full, core=True),
    Fault("clock jumps", _clock_jumps, core=True),
    Fault("no file descriptors", _no_descriptors),
)
