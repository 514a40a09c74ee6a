"""What is known of an orphan is one value, and a round of pruning costs what has changed since the one before."""

import asyncio

import orjson
import pytest
from driftwatch.cluster.discovery import Resource
from driftwatch.cluster.errors import ApiError, Status
from driftwatch.drift import orphan as orphan_rules
from driftwatch.drift.desired_state import Declared
from driftwatch.drift.metadata import Annotations, Labels, Metadata, ObjectHead
from driftwatch.drift.orphan import PrunePolicy, taken_along
from driftwatch.drift.policy import Policies, SourcePolicy
from driftwatch.model import CRD, ID_ANNOTATION, NAMESPACE, SOURCE_LABEL, GroupKind, Manifest, ObjectKey
from driftwatch.prune import pruner as pruner_module
from driftwatch.prune.pruner import DepartureReporter, Pruner
from driftwatch.prune.safeguards import PruneSafeguards
from driftwatch.state.orphan_index import OrphanIndex
from hypothesis import given
from hypothesis import strategies as st

MAP = GroupKind("", "ConfigMap")
WIDGET = GroupKind("example.com", "Widget")
PLURALS = {MAP: "configmaps", WIDGET: "widgets", NAMESPACE: "namespaces", CRD: "customresourcedefinitions"}
ALL_KINDS = PrunePolicy(enabled=True, kinds=frozenset({"Namespace", "CustomResourceDefinition"}), delay=0, objects=1000)


def resource(kind):
    return Resource(kind.group, "v1", kind.kind, PLURALS[kind], namespaced=kind in (MAP, WIDGET), prefix="/apis")


def key_of(kind, namespace, name):
    return ObjectKey(*kind, namespace, name)


def manifest(key):
    return Manifest(key.group, "v1", key.kind, key.namespace, key.name, b"{}", "digest", "a.yaml", 1)


class Reporter:
    """Notes what it is told."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return lambda *arguments: self.calls.append((name, *arguments))

    def of(self, name):
        return [arguments for said, *arguments in self.calls if said == name]


class Api:
    """Deletes, or refuses to."""

    def __init__(self):
        self.deleted = []
        self.refusal = None

    async def delete(self, _resource, namespace, name, _uid, _version):
        self.deleted.append((namespace, name))
        if self.refusal:
            raise self.refusal


class Unused:
    async def drop(self, _sources):
        return None


class Kinds:
    def preferred(self, kind):
        return resource(kind)


class World:
    """The parts that prune, without a daemon."""

    def __init__(self):
        self.now = 0.0
        self.wake = asyncio.Event()
        self.tasks = []
        self.declared = Declared(["apps", "other"], lambda kind: kind in (MAP, WIDGET))
        self.reporter, self.api = Reporter(), Api()
        self.safeguards = PruneSafeguards(self.declared, lambda: self.now, self.wake.set, self.poll, self.spawn)
        departures = DepartureReporter(self.declared, self.safeguards, self.reporter)
        self.index = OrphanIndex(self.declared, lambda: self.now, self.wake.set, departures)
        self.pruner = Pruner(
            self.declared,
            self.index,
            self.api,
            Kinds(),
            self.reporter,
            self.safeguards,
            Unused(),
            self.wake,
            lambda: self.now,
            self.spawn,
        )

    async def poll(self, _source):
        pass

    def spawn(self, work):
        self.tasks.append(asyncio.get_running_loop().create_task(work))

    def configure(self, policy, sources=("apps",)):
        policies = Policies({source: SourcePolicy() for source in sources})
        self.pruner.configure(dict.fromkeys(sources, policy), policies)
        for source in sources:
            self.safeguards.on_snapshot(source, "c1", 0)
            self.safeguards.on_fetched(source, "c1")

    async def round(self):
        await self.pruner._rounds()
        while self.tasks:
            await self.tasks.pop()

    def see(self, key, source="apps", version=5, change="ADDED", identity=None, uid="uid"):
        identity = identity or f"{key.group}/{key.kind}/{key.namespace or 'default'}/{key.name}"
        raw = {"uid": uid, "resourceVersion": str(version)}
        raw |= {"labels": {SOURCE_LABEL: source}, "annotations": {ID_ANNOTATION: identity}}
        metadata = Metadata(name=key.name, namespace=key.namespace, resourceVersion=str(version))
        metadata.labels, metadata.annotations = Labels(source=source), Annotations(id=identity)
        self.index.on_seen(key, change, ObjectHead(metadata), lambda: orjson.dumps({"metadata": raw}))


@pytest.fixture
def world():
    return World()


def states(world):
    index = world.index
    sources = [mine.keys for mine in index._of_source.values()]
    return [index._states, index._of_kind, index._in_namespace, index._unread, *filter(None, sources)]


async def test_h12_an_unchanged_round_judges_and_reports_nothing(world, monkeypatch):
    """Fifty orphans whose pruning is held are judged and reported once, however many rounds there are."""
    judged = []
    monkeypatch.setattr(
        pruner_module, "mode_of", lambda *arguments: judged.append(arguments[0]) or orphan_rules.mode_of(*arguments)
    )
    world.declared.replace("apps", [manifest(key_of(MAP, "shop", "stays"))])
    world.configure(PrunePolicy(enabled=True, objects=0, percent=0))
    orphans = [key_of(MAP, "shop", f"left-{number}") for number in range(50)]
    for key in orphans:
        world.see(key)

    for _ in range(5):
        await world.round()
    world.see(orphans[0], version=6)
    await world.round()

    assert sorted(judged) == sorted([*orphans, orphans[0]])
    assert len(world.reporter.of("orphaned")) == len(orphans)
    assert world.api.deleted == []


async def test_h12_a_namespace_that_leaves_walks_no_declared_objects(world, monkeypatch):
    """Ten namespaces and definitions leave, a thousand objects stay elsewhere: no round walks the thousand."""
    world.declared.replace("apps", [manifest(key_of(MAP, "shop", f"m{number}")) for number in range(1000)])
    world.configure(ALL_KINDS)
    walked = []
    keys = world.declared.keys
    monkeypatch.setattr(world.declared, "keys", lambda kind: walked.append(kind) or keys(kind))
    world.api.refusal = ApiError(403, Status(403, "Forbidden", "no"))
    for number in range(10):
        world.see(key_of(NAMESPACE, "", f"gone-{number}"))
        world.see(key_of(CRD, "", f"gone{number}.example.com"))

    for _ in range(3):
        await world.round()
        world.now += 1.0

    assert world.api.deleted
    assert walked == []


async def test_h12_what_keeps_a_namespace_is_looked_for_once(world, monkeypatch):
    """A namespace with a declared object stays, and the object is named; once that leaves Git, the namespace may go."""
    inside, shop = key_of(MAP, "shop", "inside"), key_of(NAMESPACE, "", "shop")
    world.declared.replace("apps", [manifest(inside), manifest(key_of(MAP, "lab", "stays"))])
    world.configure(ALL_KINDS)
    walked = []
    keys = world.declared.keys
    monkeypatch.setattr(world.declared, "keys", lambda kind: walked.append(kind) or keys(kind))
    world.see(shop)

    for _ in range(5):
        await world.round()
    assert world.reporter.of("orphaned") == [[shop, "apps", f"{inside} would go with it"]]
    assert walked == [MAP]

    world.declared.replace("apps", [manifest(key_of(MAP, "lab", "stays"))])
    await world.round()
    assert world.api.deleted == [("", "shop")]


NAMES = st.sampled_from(["a", "b"])
KEYS = st.one_of(
    st.builds(lambda namespace, name: key_of(MAP, namespace, name), NAMES, NAMES),
    st.builds(lambda namespace, name: key_of(WIDGET, namespace, name), NAMES, NAMES),
    st.builds(lambda name: key_of(NAMESPACE, "", name), NAMES),
    st.just(key_of(CRD, "", "widgets.example.com")),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("see"), KEYS, st.sampled_from(["apps", "other", "nobody"])),
        st.tuples(st.just("delete"), KEYS, st.just("")),
        st.tuples(st.just("declare"), st.lists(KEYS, max_size=4, unique=True), st.sampled_from(["apps", "other"])),
    ),
    max_size=25,
)


@given(steps=STEPS)
async def test_h12_counts_keep_what_a_walk_over_all_objects_keeps(steps):
    """After any changes, the counted candidates are those that the walk over all that stays leaves."""
    world = World()
    world.configure(PrunePolicy(enabled=True, kinds=ALL_KINDS.kinds, objects=0, percent=0), ("apps", "other"))
    version = 5
    for step, what, source in steps:
        version += 1
        if step == "see" and not world.declared.mentions(what):
            world.see(what, source, version)
        elif step == "delete":
            world.see(what, version=version, change="DELETED")
        elif step == "declare":
            for key in world.declared.replace(source, [manifest(key) for key in what]):
                if world.declared.get(key) is not None:
                    world.index.on_declared(key)
        await world.round()
        assert {name: set(world.index.source(name).candidates) for name in ("apps", "other")} == expected(world)


def expected(world):
    """The candidates of each source, by one walk over every object that stays."""
    found = {}
    everything = {key: state.orphan for key, state in world.index._states.items() if state.orphan}
    for source in ("apps", "other"):
        mine = {key for key, orphan in everything.items() if orphan.source == source}
        stays = [key for kind in world.declared.kinds for key in world.declared.keys(kind)]
        stays += [key for key in everything if key not in mine]
        along = taken_along(mine, stays, lambda kind: f"{PLURALS[kind]}.{kind.group}")
        found[source] = mine - along.keys()
    return found


async def test_h12_nothing_is_left_of_an_orphan_that_is_gone(world):
    """Deletions that failed, copies and unread objects leave nothing behind once they are gone."""
    world.declared.replace("apps", [manifest(key_of(MAP, "shop", "stays"))])
    world.configure(ALL_KINDS)
    world.api.refusal = ApiError(403, Status(403, "Forbidden", "no"))
    failed, copy, unseen = (key_of(MAP, "shop", name) for name in ("failed", "copy", "unseen"))
    world.see(failed)
    world.see(copy, identity="/ConfigMap/shop/stays")
    await world.round()
    assert world.api.deleted == [("shop", "failed")]
    world.index.on_undeclared(unseen)

    world.see(failed, version=7, change="DELETED")
    world.index.on_listed(resource(MAP), set(), 9)
    world.index.leave_unread(unseen)

    assert not any(states(world)[:4])
    assert world.reporter.of("orphan_gone") == [[failed, "apps"]]


def test_h12_a_copy_in_a_namespace_that_is_left_is_forgotten(world):
    """Nothing is heard of it any more."""
    for namespace in ("shop", "lab"):
        world.see(key_of(MAP, namespace, "copy"), identity="/ConfigMap/shop/original")

    world.index.on_unwatched(MAP, "shop")
    assert list(world.index._states) == [key_of(MAP, "lab", "copy")]
    world.index.on_unwatched(MAP)
    assert not world.index._states


def test_h12_an_object_that_another_source_takes_over_changes_its_owner_alone(world):
    """The label is another one: it is an orphan of that source, and was not deleted."""
    key = key_of(MAP, "shop", "settings")
    world.see(key)
    world.see(key, "other", version=6)

    assert list(world.index.source("other").keys) == [key]
    assert not world.index.source("apps").keys
    assert world.reporter.calls == []


def test_h12_a_kind_that_is_not_served_deletes_nothing(world):
    """Its objects may exist: those that were to be deleted are not reported as pruned."""
    key = key_of(WIDGET, "shop", "one")
    world.see(key)
    world.index.get(key).asked = True

    world.index.on_kind_gone(resource(WIDGET))

    assert world.reporter.calls == [("orphan_gone", key, "apps")]
