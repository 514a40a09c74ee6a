"""A daemon that keeps random objects while they are tampered with, and what must be so after it."""

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tests.property import oracle
from tests.property.edits import CHANGING, CONTROLLERS, Done, Edit, Verb, describe, is_at, perform
from tests.support.daemon import Daemon, parsed
from tests.support.live import Live
from tests.support.manifests import namespace_of
from tests.support.strategies import DIGEST, GONE, IDENTITY, SOURCE, KindOf, Manifest, Path
from tests.support.waiting import until

QUIET = 15.0  # seconds in which everything must be as Git says; a heal takes milliseconds, a restart two seconds

TRACKED = (SOURCE, IDENTITY, DIGEST)

_numbers = itertools.count(1)  # a namespace is never used twice


class Log:
    """The daemon's log lines from a mark on."""

    def __init__(self, daemon: Daemon) -> None:
        self._file = daemon.folder / "daemon.log"
        self._start = 0
        self.mark()

    def mark(self) -> None:
        """Forget what was said so far."""
        self._start = self._file.stat().st_size

    def lines(self, **fields: str) -> list[dict[str, Any]]:
        """What was said since, with these fields."""
        with self._file.open("rb") as stream:
            stream.seek(self._start)
            content = stream.read()
        found = [parsed(line) for line in content[: content.rfind(b"\n") + 1].decode().splitlines()]
        return [line for line in found if all(line.get(name) == value for name, value in fields.items())]

    @property
    def size(self) -> int:
        """How much it has ever said."""
        return self._file.stat().st_size


class World:
    """The daemon with its repository; one set of objects after the other, each in a namespace of its own."""

    def __init__(self, daemon: Daemon, live: Live) -> None:
        self.daemon = daemon
        self.live = live
        self.log = Log(daemon)
        self.tally: Counter[str] = Counter()
        self.kinds: list[KindOf] = []
        self.manifests: list[Manifest] = []
        self.history: list[str] = []
        self._down = False
        self._file = ""
        self._kept: dict[tuple[int, Path], tuple[str, Any]] = {}

    def begin(self) -> str:
        """A namespace for new objects."""
        self.kinds, self.manifests, self.history, self._kept = [], [], [], {}
        self.resume()
        return f"property-{next(_numbers)}"

    def pause(self, *, by_force: bool) -> None:
        """Stop the daemon: as its operator does, or as the kernel does that has no memory left."""
        self.daemon.kill() if by_force else self.daemon.stop()
        self._down = True
        self.history.append(f"the daemon is {'killed' if by_force else 'stopped'}")
        self.tally[f"restarts after {'SIGKILL' if by_force else 'SIGTERM'}"] += 1

    def resume(self) -> None:
        """Start the daemon, if it is not running."""
        if self._down:
            self.daemon.start()
            self._down = False
            self.history.append("the daemon is started")

    def declare(self, kinds: list[KindOf], manifests: list[Manifest]) -> None:
        """Commit these objects, and wait until they are there."""
        self.kinds, self.manifests = kinds, manifests
        self._file = f"{manifests[0]['metadata']['namespace']}.yaml"
        self.commit()

    def commit(self, *, within: float = QUIET) -> None:
        """Commit the manifests as they are now, and wait until the cluster is as they say."""
        namespace = namespace_of(self.manifests[0]["metadata"]["namespace"])
        commit = self.daemon.commit({self._file: [namespace, *self.manifests]})
        self.daemon.wait(lambda: self.log.lines(event="snapshot", commit=commit[:12]), "the commit is in force")
        self.wait_quiet(within=within)

    def redeclare(self, target: int, manifest: Manifest) -> None:
        """Another manifest for an object, to be committed. What controllers added to it may be Git's from now on."""
        self.manifests[target] = manifest
        self._kept = {place: value for place, value in self._kept.items() if place[0] != target}
        self.history.append(f"another manifest of {manifest['kind']} {manifest['metadata']['name']}: by a commit")

    def refuse(self, target: int, manifest: Manifest) -> None:
        """Commit another manifest for an object, which the API server refuses, and wait until it has."""
        others = [one for position, one in enumerate(self.manifests) if position != target]
        self.daemon.commit({self._file: [namespace_of(manifest["metadata"]["namespace"]), *others, manifest]})
        name = manifest["metadata"]["name"]
        self.daemon.wait(lambda: self.log.lines(name=name, event="not applied"), "the API server has refused")

    def summary(self) -> str:
        """What was done so far."""
        return ", ".join(f"{count} {what}" for what, count in sorted(self.tally.items()))

    def end(self) -> None:
        """Declare the objects no more, and delete them."""
        if not self.manifests:
            return
        namespace = namespace_of(self.manifests[0]["metadata"]["namespace"])
        self.daemon.commit({self._file: None})
        self.live.request("DELETE", self.live.path(namespace))

    def do(self, edit: Edit) -> Done:
        """Do an edit and take it down."""
        kind, manifest = self.kinds[edit.target], self.manifests[edit.target]
        done = perform(self.live, kind, manifest, edit)
        self.history.append(f"{describe(edit, manifest)} ({done.code})")
        accepted = done.code < 300
        if accepted or edit.verb is Verb.RECREATE:  # whose deletion stands even if the daemon creates it first
            self._note_additions(edit, done)
        self.tally["edits" if accepted else "refused"] += 1
        if accepted:
            self.tally[f"verb {edit.verb}"] += 1
            self.tally[f"kind {kind.kind}"] += 1
            self.tally[f"manager {edit.manager}"] += 1
        return done

    def _note_additions(self, edit: Edit, done: Done) -> None:
        """Remember what a controller added, until somebody else lays hands on it."""
        if edit.verb in (Verb.DELETE, Verb.RECREATE):
            self._kept = {at: value for at, value in self._kept.items() if at[0] != edit.target}
            return
        if edit.verb in (Verb.APPLY, Verb.APPLY_FORCE):  # the next apply takes away what it does not name
            self._kept = {
                place: kept for place, kept in self._kept.items() if place[0] != edit.target or kept[0] != edit.manager
            }
        for change in edit.changes:
            self._kept = {
                (target, path): kept
                for (target, path), kept in self._kept.items()
                if target != edit.target or not _overlap(path, change.path)
            }
            if (
                edit.changes in self.kinds[edit.target].swaps  # excludes what Git declares, and goes
                or edit.manager not in CONTROLLERS
                or edit.verb not in CHANGING
                or change.path in (SOURCE, IDENTITY, DIGEST)
            ):
                continue
            value = at(done.after, change.path)
            # Who sets what is there already owns nothing of it.
            undeclared = GONE is at(done.before, change.path) is at(self.manifests[edit.target], change.path)
            if value is not GONE and undeclared:
                self._kept[edit.target, change.path] = edit.manager, _within(value, change.value)

    def wait_quiet(self, *, within: float = QUIET) -> None:
        """Wait until every object is as it should be, and everything that controllers added is still there."""
        for manifest in self.manifests:
            wrong = [""]

            def is_right(manifest: Manifest = manifest, wrong: list[str] = wrong) -> bool:
                wrong[0] = oracle.amiss(self.live, manifest, self.daemon.source)
                return not wrong[0]

            until(
                is_right,
                "in sync",
                timeout=within,
                evidence=lambda wrong=wrong, of=manifest: self.evidence(wrong[0], of),
            )
        for manifest, wrong_addition in self.lost_additions():
            raise AssertionError(self.evidence(wrong_addition, manifest))

    def lost_additions(self) -> Iterator[tuple[Manifest, str]]:
        """What controllers added to which object and is not there any more, or is another value."""
        for (target, path), (_, value) in self._kept.items():
            manifest = self.manifests[target]
            found = _within(at(self.live.get(manifest) or {}, path), value)
            if found != value:
                yield manifest, f"a controller's addition {path} is {found}, not {value}"

    def forget_additions(self, target: int | None = None) -> None:
        """Nobody knows what controllers have added to the object, or to any."""
        self._kept = {at: kept for at, kept in self._kept.items() if target is not None and at[0] != target}

    def evidence(self, wrong: str, manifest: Manifest) -> str:
        name = f"{manifest['kind']} {manifest['metadata']['name']}"
        story = [line for line in self.history if f" of {name}:" in line or "daemon" in line]
        found = self.live.get(manifest) or {}
        return "\n".join(
            [
                wrong,
                f"Git: {json.dumps(manifest)}",
                f"live: {json.dumps(found)}",
                "what was done to it:",
                *story[-12:],
                "what the daemon said of it:",
                *(json.dumps(line) for line in self.log.lines(name=manifest["metadata"]["name"])[-12:]),
            ]
        )


def at(value: Any, path: Path) -> Any:
    """What is at a path, `GONE` where nothing is."""
    for step in path:
        if isinstance(step, str):
            value = value.get(step, GONE) if isinstance(value, dict) else GONE
        else:
            value = next((item for item in value if is_at(item, step)), GONE) if isinstance(value, list) else GONE
    return value


def _within(value: Any, limits: Any) -> Any:
    """As much of a value as another one has, too: without defaults, and without what somebody else put there."""
    if isinstance(value, dict) and isinstance(limits, dict):
        return {name: _within(value.get(name, GONE), inner) for name, inner in limits.items()}
    return value


def _overlap(one: Path, other: Path) -> bool:
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]
