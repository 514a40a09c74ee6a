"""Whatever is done to objects behind Git's back, they come to be as Git says, and what is said of it is true."""

import os
import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.property.edits import edits
from tests.property.kinds import KINDS
from tests.property.report import check_report
from tests.property.world import World

LONG = "DRIFTWATCH_PROPERTY_EDITS"  # so many edits at least; without it a short run
SEED = "DRIFTWATCH_PROPERTY_SEED"
SHRINK = "DRIFTWATCH_PROPERTY_SHRINK"
SHORT_EXAMPLES = 2
LONG_EXAMPLES = 20
STEPS = 8
BATCH = 10 if LONG in os.environ else 4  # edits at least, three times as many at most


class Tampering(RuleBasedStateMachine):
    """One object of every kind, and what happens to them."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    @initialize(data=st.data())
    def declare(self, data: st.DataObject) -> None:
        """Git declares them."""
        namespace = self.world.begin()
        manifests = [data.draw(kind.manifests(namespace, kind.kind.lower())) for kind in KINDS]
        self.world.declare(list(KINDS), manifests)
        self._edit_one_by_one(data)

    def _some_edits(self, data: st.DataObject) -> None:
        chosen = edits(self.world.kinds, self.world.manifests)
        for edit in data.draw(st.lists(chosen, min_size=BATCH, max_size=3 * BATCH)):
            self.world.do(edit)

    @rule(data=st.data())
    def tamper(self, data: st.DataObject) -> None:
        """A batch of edits of any objects, faster than anybody could make them."""
        self._some_edits(data)
        self.world.wait_quiet()

    @rule(data=st.data())
    def tamper_more(self, data: st.DataObject) -> None:
        """Most of what happens is this."""
        self.tamper(data)

    @rule(data=st.data())
    def tamper_with_one_field(self, data: st.DataObject) -> None:
        """A single edit of a single object: what is said of it is compared with what it did."""
        self._edit_one_by_one(data)

    def _edit_one_by_one(self, data: st.DataObject) -> None:
        for _ in range(6):
            check_report(self.world, data.draw(edits(self.world.kinds, self.world.manifests, only_fields=True)))

    @rule(data=st.data(), by_force=st.booleans())
    def restart(self, data: st.DataObject, by_force: bool) -> None:
        """The daemon ends, there are edits, and it starts again."""
        self.world.pause(by_force=by_force)
        self._some_edits(data)
        self.world.resume()
        self.world.wait_quiet()

    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        """Git declares some of them otherwise; edits come at the same time."""
        for target in data.draw(st.sets(st.integers(0, len(KINDS) - 1), min_size=1, max_size=3)):
            metadata = self.world.manifests[target]["metadata"]
            drawn = data.draw(KINDS[target].manifests(metadata["namespace"], metadata["name"]))
            self.world.redeclare(target, drawn)
        self.world.commit()

    def teardown(self) -> None:
        """The objects go."""
        self.world.end()


def _play(world: World, number: int, examples: int) -> None:
    phases = [Phase.generate, Phase.shrink] if os.environ.get(SHRINK) else [Phase.generate]

    @seed(number)
    def machine() -> Tampering:
        return Tampering(world)

    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            phases=phases,
            verbosity=Verbosity.normal,
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        ),
    )


@pytest.mark.timeout(3600)
def test_whatever_is_tampered_with_comes_to_be_as_git_says(world: World, say: Callable[[str], None]) -> None:
    """After any edits by anybody and any restarts, a dry run changes nothing and no person owns an undeclared field."""
    wanted = int(os.environ.get(LONG, "0"))
    number = int(os.environ.get(SEED, "1"))
    began = time.monotonic()
    failures: list[Exception] = []
    try:
        while True:
            try:
                _play(world, number, LONG_EXAMPLES if wanted else SHORT_EXAMPLES)
            except Exception as failure:
                if not wanted:
                    raise
                failures.append(failure)  # a long run goes on with the next seed
            if world.tally["edits"] >= wanted:
                break
            number += 1
        if failures:
            raise ExceptionGroup("what did not come to be as Git says", failures)
    finally:
        say(f"seeds up to {number}, {time.monotonic() - began:.0f} s, {world.summary()}")
    assert world.tally["edits"] >= min(wanted, 40)
