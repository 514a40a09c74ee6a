"""A chaos run: rounds of faults under load, each followed by quiet and the invariant."""

import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.chaos.faults import FAULTS, LONGEST, Fault
from tests.chaos.invariant import QUIET, Invariant
from tests.chaos.load import Load, Turmoil
from tests.chaos.stage import Stage, stage

MOST_AT_ONCE = 3  # faults that overlap
NEWLINE = "\n"

Say = Callable[[str], None]


class InvariantBroken(Exception):
    """The invariant does not hold; the message has the evidence."""


class Campaign:
    """One run, from one seed. It fixes what is done, and in which order; when exactly depends on the machine.

    It ends after so many seconds; a `brief` one has the faults of the core alone, and ends when each has come once.
    """

    def __init__(self, seed: int, folder: Path, say: Say, *, seconds: float = 0.0, brief: bool = False) -> None:
        self.seed = seed
        self._seconds = seconds
        self._folder = folder
        self._say = say
        self._chance = random.Random(seed)
        self._brief = brief
        self._deck = [fault for fault in FAULTS if fault.core or not brief]
        self._dealt: list[Fault] = []
        self._began = time.monotonic()
        self.faults: Counter[str] = Counter()
        self.rounds = 0
        self.report: dict[str, Any] = {}

    def run(self) -> None:
        """Go on until the time is over, always to the end of a round. Raises `InvariantBroken`."""
        with stage(self._folder) as scene:
            turmoil = Turmoil(scene.daemon, scene.live, self.seed * 1_000_000)
            turmoil.commit_all()
            invariant = Invariant(scene, turmoil)
            failure = ""
            try:
                self._check(scene, invariant, turmoil, "first sync")
                self._began = time.monotonic()
                while not self._is_over():
                    self.rounds += 1
                    self._round(scene, turmoil)
                    self._check(scene, invariant, turmoil, f"round {self.rounds}")
            except InvariantBroken as finding:
                failure = str(finding)
                self._keep_evidence(scene)
                raise
            finally:
                self.report = self._report(scene, turmoil, invariant, failure)

    def _is_over(self) -> bool:
        if self._brief:
            return len(self.faults) == len(self._deck)
        return time.monotonic() - self._began > self._seconds

    def _round(self, scene: Stage, turmoil: Turmoil) -> None:
        turmoil.log.mark()
        load = Load(turmoil, self._chance.getrandbits(32))
        begun: list[ExitStack] = []
        rewound = False
        try:
            for fault in self._deal(self._chance.randint(1, MOST_AT_ONCE)):
                time.sleep(self._chance.uniform(0.2, 1.5))
                begun.append(ExitStack())
                done = begun[-1].enter_context(fault.begin(scene, self._chance))
                self.faults[fault.name] += 1
                rewound |= fault.rewinds
                turmoil.history.append(f"meanwhile, around the daemon: {fault.name}")
                self._tell(f"round {self.rounds}: {fault.name}, {done}")
            time.sleep(self._chance.uniform(0.5, LONGEST))
        finally:
            self._chance.shuffle(begun)
            for stack in begun:
                stack.close()
            scene.mend()
            time.sleep(self._chance.uniform(0.0, 1.0))
            load.stop()
        if rewound:
            turmoil.forget_additions()

    def _deal(self, count: int) -> Iterator[Fault]:
        """The next faults of a shuffled deck: each comes as often as any other."""
        for _ in range(count):
            if not self._dealt:
                self._dealt = self._chance.sample(self._deck, len(self._deck))
            yield self._dealt.pop()

    def _check(self, scene: Stage, invariant: Invariant, turmoil: Turmoil, when: str) -> None:
        wrong = [*invariant.wait(), *scene.complaints()]
        if wrong:
            self._tell(f"{when}: FAILED")
            raise InvariantBroken(
                "\n\n".join([f"seed {self.seed}, {when}, not so within {QUIET:.0f} s of quiet:", *wrong])
            )
        objects, seconds = len(turmoil.declared), invariant.seconds[-1]
        self._tell(f"{when}: {objects} objects as they must be, after {seconds:.1f} s of quiet")

    def _keep_evidence(self, scene: Stage) -> None:
        evidence = self._folder / "evidence"
        evidence.mkdir()
        shutil.copytree(scene.cluster.directory / "logs", evidence / "logs")
        shutil.copy(scene.cluster.audit_log, evidence)
        shutil.copy(scene.daemon.folder / "daemon.log", evidence)
        self._tell(f"logs are kept in {evidence}")

    def _tell(self, what: str) -> None:
        self._say(f"{time.monotonic() - self._began:7.1f} s  {what}")

    def _report(self, scene: Stage, turmoil: Turmoil, invariant: Invariant, failure: str) -> dict[str, Any]:
        quiet = sorted(invariant.seconds) or [0.0]
        return {
            "seed": self.seed,
            "seconds": round(time.monotonic() - self._began),
            "rounds": self.rounds,
            "faults": dict(self.faults.most_common()),
            "edits": turmoil.tally["edits"],
            "editsRefused": turmoil.tally["refused"],
            "editsWithoutAnswer": turmoil.tally["edits that were not answered"],
            "commits": turmoil.commits["commits"],
            "changesOfGit": {what: count for what, count in sorted(turmoil.commits.items()) if what != "commits"},
            "daemonStarts": scene.supervisor.starts,
            "daemonCouldNotStart": len(scene.supervisor.unable),
            "checks": len(invariant.seconds),
            "objectsJudged": invariant.objects,
            "secondsUntilQuiet": {"median": round(quiet[len(quiet) // 2], 1), "longest": round(quiet[-1], 1)},
            "failure": failure,
        }


def summary(report: dict[str, Any]) -> str:
    """A report as people read it."""
    faults = [f"  {count:5}  {name}" for name, count in report["faults"].items()]
    quiet = report["secondsUntilQuiet"]
    return f"""\
seed {report["seed"]}: {report["rounds"]} rounds in {report["seconds"]} s, {sum(report["faults"].values())} faults
{NEWLINE.join(faults)}
load: {report["edits"]} edits, {report["editsRefused"]} more refused by the API server, \
{report["editsWithoutAnswer"]} without an answer; {report["commits"]} commits
starts of the daemon: {report["daemonStarts"]}, of which {report["daemonCouldNotStart"]} ended since it could not begin
checks of the invariant: {report["checks"]}, of {report["objectsJudged"]} objects; \
quiet after {quiet["median"]} s at the median, {quiet["longest"]} s at most
{"the invariant does not hold" if report["failure"] else "the invariant held every time"}"""


def write_report(report: dict[str, Any], file: Path) -> None:
    """Write a report as JSON."""
    file.write_text(json.dumps(report, indent=2) + "\n")
