"""The random edits and commits that go on while everything breaks."""

import random
import threading
from collections import Counter
from dataclasses import replace

import urllib3

from tests.chaos.draws import drawn
from tests.property.edits import Done, Edit, edits
from tests.property.kinds import KINDS, widget_crd
from tests.property.world import World
from tests.support.daemon import Daemon
from tests.support.live import Live, Manifest
from tests.support.manifests import config_map, namespace_of
from tests.support.strategies import GONE, KindOf

NAMESPACE = "chaos"
MORE_MAPS = 8  # ConfigMaps beside one object of every kind
EDITS_A_ROUND = 60
PAUSE = 0.05  # seconds between two actions, on average
COMMITS = 0.04  # share of the actions; as many again declare an object anew, or drop one
MOST_EXTRAS = 6

# A quota's status limits at once what may be created, and its controller takes minutes to put it right: where there are
# more ConfigMaps than the one of the property tests, nobody could create the others anew.
CHAOS_KINDS = [replace(kind, status=None) if kind.kind == "ResourceQuota" else kind for kind in KINDS]
CONFIG_MAP = next(kind for kind in KINDS if kind.kind == "ConfigMap")


class Turmoil(World):
    """What Git declares, and the edits of it, by whom the API server is away more often than not.

    `extras` are objects that commits bring and take away; nobody edits them.
    """

    def __init__(self, daemon: Daemon, live: Live, number: int) -> None:
        super().__init__(daemon, live)
        self._number = number
        self.namespace = namespace_of(NAMESPACE)
        self.kinds: list[KindOf] = [*CHAOS_KINDS, *[CONFIG_MAP] * MORE_MAPS]
        self.extras: dict[str, Manifest] = {}
        self._made = 0
        self.commits: Counter[str] = Counter()
        for target, kind in enumerate(self.kinds):
            name = f"{kind.kind.lower()}-{target}"
            self.manifests += drawn(kind.manifests(NAMESPACE, name), self._next())

    def _next(self) -> int:
        """The number of the next draw: all of them follow from the seed."""
        self._number += 1
        return self._number

    @property
    def declared(self) -> list[Manifest]:
        """Everything that Git declares now."""
        return [widget_crd(), self.namespace, *self.manifests, *self.extras.values()]

    def commit_all(self) -> str:
        """Commit what is declared. Returns the commit."""
        self.commits["commits"] += 1
        return self.daemon.commit({"all.yaml": self.declared})

    def edits_of_a_round(self) -> list[Edit]:
        """Edits of any objects."""
        return drawn(edits(self.kinds, self.manifests), self._next(), EDITS_A_ROUND)

    def do(self, edit: Edit) -> Done:
        """Do an edit; nobody knows what came of one that is not answered."""
        try:
            done = super().do(edit)
        except (urllib3.exceptions.HTTPError, AssertionError, LookupError):
            done = Done(0, GONE, GONE)
        if done.code in (0, 429) or done.code >= 500:
            self.forget_additions(edit.target)
            self.tally["edits that were not answered"] += 1
        return done

    def change_something(self, chance: random.Random) -> None:
        """Another desired state: a manifest is another one, an object comes, or one goes."""
        what = chance.choice(("redeclare", "redeclare", "add", "drop"))
        if what == "redeclare":
            target = chance.randrange(len(self.manifests))
            metadata = self.manifests[target]["metadata"]
            [manifest] = drawn(self.kinds[target].manifests(NAMESPACE, metadata["name"]), self._next())[:1]
            self.redeclare(target, manifest)
        elif what == "add" and len(self.extras) < MOST_EXTRAS:
            self._made += 1
            name = f"extra-{self._made}"
            self.extras[name] = config_map(name, NAMESPACE, number=str(self._made))
        elif self.extras:
            del self.extras[chance.choice(sorted(self.extras))]
        else:
            return
        self.commits[what] += 1
        self.commit_all()


class Load:
    """Tampers and commits in a thread until it is stopped."""

    def __init__(self, turmoil: Turmoil, number: int) -> None:
        self._turmoil = turmoil
        self._chance = random.Random(number)
        self._edits = turmoil.edits_of_a_round()
        self._over = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="load")
        self._thread.start()

    def stop(self) -> None:
        """End it; raises what went wrong in it."""
        self._over.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            while not self._over.wait(self._chance.expovariate(1 / PAUSE)):
                if self._chance.random() < COMMITS:
                    self._turmoil.change_something(self._chance)
                else:
                    self._turmoil.do(self._chance.choice(self._edits))
        except BaseException as failure:  # noqa: BLE001  raised where it is waited for
            self._failure = failure
