"""The audit checks what is held to be in sync, and nothing else; what it finds is counted and judged anew."""

import asyncio

import orjson
import pytest
from driftwatch.cluster.errors import Unreachable
from driftwatch.drift.desired_state import Declared
from driftwatch.drift.detector import Detector
from driftwatch.drift.managers import Managers
from driftwatch.drift.metadata import Fingerprint
from driftwatch.drift.object_state import Observation, Verdict
from driftwatch.drift.policy import Policy
from driftwatch.drift.snooze import SnoozeRequest
from driftwatch.model import Drift, DriftType, Manifest, Mode, ObjectKey
from driftwatch.reconcile.audit import Audit

KEY = ObjectKey("", "ConfigMap", "shop", "settings")
MANIFEST = Manifest("", "v1", "ConfigMap", "shop", "settings", orjson.dumps({"metadata": {}}), "abc", "a.yaml", 1)
DRIFT = Drift(KEY, "apps", DriftType.MODIFIED)


class Controller:
    """Answers what a dry run would find, and notes what is to be judged anew."""

    def __init__(self, found=None):
        self.found = found
        self.asked = 0
        self.reconsidered = []
        self.meanwhile = lambda: None
        self.busy = []
        self.asked_while_busy = 0

    def heals_drift(self):
        """As often as `busy` says; None: always."""
        return self.busy is None or bool(self.busy and self.busy.pop())

    async def difference(self, _key):
        self.asked += 1
        self.asked_while_busy += bool(self.busy)
        self.meanwhile()
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    def reconsider(self, keys):
        self.reconsidered += keys


class Reporter:
    def __init__(self):
        self.told = []
        self.often = asyncio.Event()

    def audited(self, key, source, found):
        self.told.append((key, source, found))
        if len(self.told) == 3:
            self.often.set()


class Scene:
    def __init__(self, found=None):
        declared = Declared(["apps"], lambda _kind: True)
        declared.replace("apps", [MANIFEST])
        self.detector = Detector(declared.states, lambda: 0.0, Managers())
        self.record = self.detector.states.of(KEY)
        self.record.live, self.record.accepted, self.record.last_applied = True, Fingerprint(b"as we left it"), "abc"
        self.controller, self.reporter = Controller(found), Reporter()
        self.audit = Audit(declared, self.detector, self.controller, self.reporter, 0.0)


async def test_what_is_in_sync_is_checked_and_that_is_all():
    """A quiet object counts as audited, and nothing is found."""
    scene = Scene()
    await scene.audit.check(KEY)
    assert scene.reporter.told == [(KEY, "apps", None)]
    assert scene.controller.reconsidered == []


async def test_drift_that_no_event_told_of_is_counted_and_judged_anew():
    """An object that is held to be in sync and is not: a finding, and work for the healer."""
    scene = Scene(DRIFT)
    await scene.audit.check(KEY)
    assert scene.reporter.told == [(KEY, "apps", DRIFT)]
    assert scene.controller.reconsidered == [KEY]


async def test_a_snooze_keeps_nothing_from_the_audit():
    """What is held to be in sync may differ all the same, and an annotation that has run out stays on its object."""
    scene = Scene(DRIFT)
    scene.record.snooze = SnoozeRequest("2020-01-01T00:00:00Z", 0.0)
    await scene.audit.check(KEY)
    assert scene.reporter.told == [(KEY, "apps", DRIFT)]
    assert scene.controller.reconsidered == [KEY]


def _evidence(scene):
    scene.detector.states.of(KEY).observation = Observation(Verdict.SUSPECT, 9, 0.0)


def _set(**values):
    def change(scene):
        for name, value in values.items():
            setattr(scene.record, name, value)

    return change


@pytest.mark.parametrize(
    "change",
    [
        _evidence,
        _set(live=False),
        _set(terminating=True),
        _set(accepted=None),
        _set(reported=True),
        _set(differs=True),
        _set(last_applied="other"),
        _set(policy=Policy(Mode.PAUSED)),
        _set(policy=Policy(Mode.IGNORE)),
        lambda scene: scene.detector.states.forget(KEY),
    ],
    ids=["evidence", "gone", "terminating", "unjudged", "reported", "differs", "commit", "paused", "ignored",
         "forgotten"],
)  # fmt: skip
async def test_what_is_known_to_differ_or_not_ours_to_judge_is_left_alone(change):
    """No request is made for it, and it counts neither as checked nor as found."""
    scene = Scene(DRIFT)
    change(scene)
    await scene.audit.check(KEY)
    assert (scene.controller.asked, scene.reporter.told) == (0, [])


@pytest.mark.parametrize("change", [_evidence, _set(version=7)], ids=["evidence", "event"])
async def test_an_edit_during_the_check_is_what_events_are_for(change):
    """What comes in while the API server is asked is no finding."""
    scene = Scene(DRIFT)
    scene.controller.meanwhile = lambda: change(scene)
    await scene.audit.check(KEY)
    assert scene.reporter.told == []
    assert scene.controller.reconsidered == []


async def test_an_api_server_that_cannot_be_asked_is_no_finding():
    """The round goes on."""
    scene = Scene(Unreachable("connection refused"))
    await scene.audit.check(KEY)
    assert scene.reporter.told == []


async def test_a_mistake_of_our_own_with_one_object_does_not_end_the_round():
    """The daemon would end with it."""
    scene = Scene(IndexError("tuple index out of range"))
    await scene.audit.check(KEY)
    assert scene.reporter.told == []


async def _three_checks(scene):
    running = asyncio.ensure_future(scene.audit.run())
    await asyncio.wait_for(scene.reporter.often.wait(), 10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_round_comes_to_every_object_again_and_again():
    """Until it is cancelled."""
    scene = Scene()
    scene.audit.configure(0.001)
    await _three_checks(scene)


async def test_the_audit_gives_way_while_drift_is_healed():
    """A check costs the API server as much as a heal does."""
    scene = Scene()
    scene.audit.configure(0.3)
    scene.controller.busy = [True] * 4
    await _three_checks(scene)
    assert scene.controller.asked_while_busy == 0


async def test_drift_that_does_not_end_holds_up_the_audit_no_longer_than_a_round_takes():
    scene = Scene()
    scene.audit.configure(0.05)
    scene.controller.busy = None
    await _three_checks(scene)
