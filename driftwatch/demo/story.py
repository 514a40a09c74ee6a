"""The steps of the demo: each breaks something, and ends when the API server confirms that it is healed."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from driftwatch.demo.comparison import unlike
from driftwatch.demo.daemon import GIT_SECONDS, Line
from driftwatch.demo.errors import DemoError, NotHealed
from driftwatch.demo.repository import AUTHOR, NAME, NAMESPACE
from driftwatch.demo.screen import LIVE_EVENTS, Screen, milliseconds
from driftwatch.demo.stage import Stage

START_SECONDS = 30.0
HEAL_SECONDS = 10.0
COMMAND_SECONDS = 20.0
# Namespace deletion takes at least five seconds (its controller's rule), plus the time in which its Pods end.
NAMESPACE_SECONDS = 120.0
COMMIT_SECONDS = 30.0
READING_SECONDS = 1.0  # on a terminal, between two steps
POLL_SECONDS = 0.05

Objects = dict[str, dict[str, Any]]
ALL_KINDS = ("Namespace", "Deployment", "Service", "ConfigMap")


def _container(live: Objects) -> dict[str, Any]:
    container: dict[str, Any] = live["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    return container


@dataclass(frozen=True)
class Break:
    """One way to break something. `new` lists the kinds that must have new objects afterwards."""

    title: str
    command: tuple[str, ...]
    outcome: Callable[[Objects], str]
    kinds: tuple[str, ...] = ("Deployment",)
    new: tuple[str, ...] = ()
    wrong: Callable[[Objects], str] = lambda _live: ""  # describes what must be absent although no manifest forbids it
    seconds: float = COMMAND_SECONDS


_IN = ("-n", NAMESPACE)
BREAKS = (
    Break(
        "Somebody deletes the Deployment",
        ("delete", "deploy", NAME, *_IN),
        lambda live: f"it is there again, as a new object (uid {live['Deployment']['metadata']['uid'][:8]})",
        new=("Deployment",),
    ),
    Break(
        "Somebody scales it up",
        ("scale", "deploy", NAME, "--replicas=5", *_IN),
        lambda live: f"spec.replicas is {live['Deployment']['spec']['replicas']}",
    ),
    Break(
        "Somebody deploys another image past Git",
        ("set", "image", f"deploy/{NAME}", "nginx=nginx:latest", *_IN),
        lambda live: f"the image is {_container(live)['image']}",
    ),
    Break(
        "Somebody removes a label",
        ("label", "deploy", NAME, "tier-", *_IN),
        lambda live: f"the label tier is {live['Deployment']['metadata']['labels']['tier']}",
    ),
    Break(
        "Somebody adds a variable that Git knows nothing of",
        ("set", "env", f"deploy/{NAME}", "DEBUG=true", *_IN),
        lambda _live: "the container has no variable any more",
        wrong=lambda live: "the container still has a variable" if _container(live).get("env") else "",
    ),
    Break(
        "Somebody deletes the namespace with everything in it",
        ("delete", "ns", NAMESPACE),
        lambda live: f"namespace, Deployment, Service and ConfigMap: {len(live)} of {len(ALL_KINDS)} are back, all new",
        kinds=ALL_KINDS,
        new=ALL_KINDS,
        seconds=NAMESPACE_SECONDS,
    ),
)
STEPS = len(BREAKS) + 2  # the first sync before them, the new commit after them


class Story:
    """Runs the steps on a stage and prints them to a screen."""

    def __init__(self, stage: Stage, screen: Screen) -> None:
        self._stage = stage
        self._screen = screen
        self._number = 0
        self._heals: list[float] = []
        self.told = False

    def play(self) -> bool:
        """Run every step; False at the first that fails. `told` is true after either."""
        healed = self._play()
        self.told = True
        return healed

    def _play(self) -> bool:
        try:
            self._first_sync()
            for step in BREAKS:
                self._pause()
                self._break(step)
            self._pause()
            self._new_commit()
        except DemoError as error:
            self._screen.cross(str(error))
            self._screen.note(f"{STEPS - self._number} of {STEPS} steps were not played.")
            return False
        self._sum_up()
        return True

    def stay(self) -> None:
        """Print the daemon's events until a signal arrives. Raises `DemoError` if the daemon ends."""
        daemon = self._stage.daemon
        while True:
            running = daemon.running
            for line in daemon.poll():
                if line["event"] in LIVE_EVENTS:
                    self._screen.line(line, stamp=True)
            if not running:
                raise DemoError(f"driftwatch has ended by itself. Its last words:\n{daemon.last_words()}")
            time.sleep(POLL_SECONDS)

    def _begin(self, title: str) -> None:
        self._number += 1
        self._screen.step(self._number, title)

    def _pause(self) -> None:
        if self._screen.interactive:
            time.sleep(READING_SECONDS)

    def _first_sync(self) -> None:
        self._begin("driftwatch starts and brings the cluster to what Git declares")
        self._screen.command("driftwatch run --config driftwatch.yaml")
        daemon = self._stage.daemon
        daemon.start()
        with self._screen.waiting("driftwatch starts"):
            done = daemon.wait(lambda lines: bool(_of(lines, "first pass done")), 0, START_SECONDS)
        for line in _of(daemon.lines, "synced"):
            self._screen.line(line)
        if not done:
            raise NotHealed(f"the first sync is not done after {START_SECONDS:.0f} s. {self._said(daemon.lines)}")
        self._verify(HEAL_SECONDS)
        ready = _time(_of(daemon.lines, "first pass done")[-1]) - _time(_of(daemon.lines, "snapshot")[0])
        self._screen.tick(
            f"everything is as commit {self._commit()} declares it, {milliseconds(ready)} after Git was read"
        )

    def _break(self, step: Break) -> None:
        self._begin(step.title)
        daemon, kubectl = self._stage.daemon, self._stage.kubectl
        before = kubectl.objects()
        since = len(daemon.lines)
        started = time.monotonic()
        self._screen.command(f"kubectl {' '.join(step.command)}")
        with self._screen.waiting("kubectl waits for the cluster"):
            answer = kubectl.run(*step.command, seconds=step.seconds)
        self._screen.note(answer.strip(), 5)
        if (took := time.monotonic() - started) > 1:
            self._screen.note(f"(the cluster took {milliseconds(took)} to delete it)", 5)
        wanted = set(step.kinds)
        done = daemon.wait(
            lambda lines: wanted <= {line["kind"] for line in _of(lines, "drift healed")}, since, HEAL_SECONDS
        )
        healed = _of(daemon.lines[since:], "drift healed")
        for line in healed:
            self._screen.line(line)
            # Objects of a deleted namespace wait for Kubernetes to finish the deletion. That is not driftwatch's time.
            if line["kind"] == step.kinds[0]:
                self._heals.append(line["seconds"])
        if not done:
            missing = ", ".join(sorted(wanted - {line["kind"] for line in healed}))
            raise NotHealed(
                f"{missing} {NAME}: not healed after {HEAL_SECONDS:.0f} s. {self._said(daemon.lines[since:])}"
            )
        old = {kind: before[kind]["metadata"]["uid"] for kind in step.new if kind in before}
        live = self._verify(HEAL_SECONDS, lambda live: _same_objects(old, live) or step.wrong(live))
        self._screen.tick(step.outcome(live))

    def _new_commit(self) -> None:
        self._begin("Somebody changes Git, as it should be done")
        repository, daemon = self._stage.repository, self._stage.daemon
        since = len(daemon.lines)
        repository.edit("deployment.yaml", "replicas: 2", "replicas: 3")
        repository.edit("configmap.yaml", "Declared in Git", "Declared in a newer commit")
        commit = repository.commit("Three replicas, and a new page")
        committed = time.time()
        self._screen.command("git commit -am 'Three replicas, and a new page'")
        self._screen.note(f"commit {commit[:7]} by {AUTHOR}", 5)
        wanted = {"Deployment", "ConfigMap"}
        with self._screen.waiting(f"driftwatch asks Git every {GIT_SECONDS:g} s"):
            done = daemon.wait(
                lambda lines: wanted <= {line["kind"] for line in _of(lines, "synced")}, since, COMMIT_SECONDS
            )
        synced = _of(daemon.lines[since:], "synced")
        for line in synced:
            self._screen.line(line)
        if not done:
            said = self._said(daemon.lines[since:])
            raise NotHealed(f"commit {commit[:7]} is not applied after {COMMIT_SECONDS:.0f} s. {said}")
        live = self._verify(HEAL_SECONDS)
        took = milliseconds(_time(synced[-1]) - committed)
        replicas = live["Deployment"]["spec"]["replicas"]
        self._screen.tick(
            f"spec.replicas is {replicas}, {took} after the commit (Git is asked every {GIT_SECONDS:g} s)"
        )

    def _verify(self, seconds: float, wrong: Callable[[Objects], str] = lambda _live: "") -> Objects:
        """Poll the API server until everything matches the newest commit. Raises `NotHealed`."""
        declared = self._stage.repository.declared()
        deadline = time.monotonic() + seconds
        while True:
            live = self._stage.kubectl.objects()
            found = unlike(declared, live)
            if not found and (word := wrong(live)):
                found = [word]
            if not found:
                return live
            if time.monotonic() >= deadline:
                raise NotHealed(f"{'; '.join(found)}. {self._said(self._stage.daemon.lines)}")
            time.sleep(POLL_SECONDS)

    def _said(self, lines: list[Line]) -> str:
        """The daemon's last log message about a problem."""
        bad = [line for line in lines if line.get("error")]
        return f"driftwatch says: {bad[-1]['event']}: {bad[-1]['error']}" if bad else "driftwatch says nothing of it."

    def _commit(self) -> str:
        return self._stage.repository.head()[:7]

    def _sum_up(self) -> None:
        screen = self._screen
        screen.gap()
        screen.tick(
            f"{STEPS} of {STEPS} steps: each verified with the API server. Heals took "
            f"{milliseconds(min(self._heals))} to {milliseconds(max(self._heals))}, "
            f"{milliseconds(statistics.median(self._heals))} in the median."
        )
        for note in (
            "Times are driftwatch's own, from the arrival of the watch event to the API server's answer;",
            "what is in a deleted namespace also waits for the namespace.",
            "“unknown”: Kubernetes keeps no name of who deletes an object or removes a field.",
        ):
            screen.note(note, 5)


def _of(lines: list[Line], event: str) -> list[Line]:
    return [line for line in lines if line["event"] == event]


def _time(line: Line) -> float:
    return datetime.fromisoformat(line["timestamp"]).timestamp()


def _same_objects(old: dict[str, str], live: Objects) -> str:
    """Name an object that should have been recreated but still has its old uid."""
    return next((f"{kind} is the old object" for kind, uid in old.items() if live[kind]["metadata"]["uid"] == uid), "")
