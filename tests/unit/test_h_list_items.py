"""Lists with many items: what an object costs to judge, and that each item is found as by a plain scan."""

import msgspec
import orjson
import pytest
from driftwatch.drift.detector import Detector
from driftwatch.drift.explain import has_other_values
from driftwatch.drift.fieldset import MISSING, cut_all, lookup
from driftwatch.drift.ignore import effective
from driftwatch.drift.items import ItemIndex, StepIndex
from driftwatch.drift.managers import Managers
from driftwatch.drift.metadata import ManagedFieldsEntry, Metadata, decode_head, known
from driftwatch.drift.object_state import Verdict
from driftwatch.drift.policy import Policy
from driftwatch.drift.rules import Rule
from driftwatch.model import FIELD_MANAGER, Manifest, ObjectKey
from hypothesis import given
from hypothesis import strategies as st

from tests.support.growth import assert_linear
from tests.support.states import states_of

DIGEST = "digest"
KEY = ObjectKey("apps", "Deployment", "shop", "web")


def keyed(**keys):
    return "k:" + orjson.dumps(keys).decode()


def variables(count):
    items = [{"name": f"VARIABLE_{number:03}", "value": str(number)} for number in range(count)]
    owned = {keyed(name=item["name"]): {".": {}, "f:name": {}, "f:value": {}} for item in items}
    container = {"name": "web", "image": "nginx", "env": items}
    fields = {".": {}, "f:name": {}, "f:image": {}, "f:env": owned}
    return {"spec": {"containers": [container]}}, {"f:spec": {"f:containers": {keyed(name="web"): fields}}}


def ports(count):
    """Ports that leave out `protocol`, which has a default."""
    items = [{"name": f"p{number}", "port": number} for number in range(1, count + 1)]
    owned = {keyed(port=item["port"], protocol="TCP"): {".": {}, "f:name": {}, "f:port": {}} for item in items}
    return {"spec": {"ports": items}}, {"f:spec": {"f:ports": owned}}


def rules(count):
    items = [{"apiGroups": [""], "resources": [f"r{number}"], "verbs": ["get"]} for number in range(count)]
    return {"rules": items}, {"f:rules": {}}


def values(count):
    items = [f"example.com/guard-{number}" for number in range(count)]
    return {"spec": {"set": items}}, {"f:spec": {"f:set": {f'v:"{item}"': {} for item in items}}}


SHAPES = [variables, ports, rules, values]


def live(shape, count):
    """An object as the API server has it after our apply, and its manifest."""
    body, fields = shape(count)
    body["metadata"] = {"labels": {"app": "web"}}
    fields["f:metadata"] = {"f:labels": {"f:app": {}}}
    entry = {"manager": FIELD_MANAGER, "operation": "Apply", "time": "2026-01-01T00:00:00Z", "fieldsV1": fields}
    metadata = {
        **body["metadata"],
        "name": "web",
        "namespace": "shop",
        "resourceVersion": "5",
        "annotations": {"driftwatch.io/desired-hash": DIGEST},
        "managedFields": [entry],
    }
    manifest = Manifest("apps", "v1", "Deployment", "shop", "web", orjson.dumps(body), DIGEST, "web.yaml", 1)
    return manifest, orjson.dumps({**body, "metadata": metadata})


def judged(shape, count):
    manifest, raw = live(shape, count)
    head = decode_head(raw)

    def first_list():
        detector = Detector(states_of({KEY: manifest}), lambda: 0.0, Managers())
        detector.states.of(KEY).policy = Policy()
        assert detector.on_listed(KEY, head, known(raw)) is Verdict.IN_SYNC

    def values_compared():
        assert not has_other_values(manifest.body, head.metadata, raw)

    return first_list, values_compared


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("work", [0, 1], ids=["first-list", "event-soon-after-our-write"])
def test_h07_an_object_costs_time_linear_in_its_list_items(shape, work):
    """Eight times the items of a list cost about eight times the CPU, in the first LIST and in an event."""
    assert_linear(lambda count: judged(shape, count)[work], 250)


def test_h07_variables_that_a_rule_ignores_cost_time_linear_in_their_number():
    """A rule that leaves every variable to others makes an event no more than linear in the variables."""
    rule = Rule("variables")

    def ignoring(count):
        manifest, raw = live(variables, count)
        pointers = tuple(("spec", "containers", "0", "env", str(number), "value") for number in range(count))
        metadata, found = decode_head(raw).metadata, orjson.loads(raw)
        several = [msgspec.structs.replace(rule, pointers=pointers)]
        return lambda: effective(manifest.body, found, metadata, several)

    assert_linear(ignoring, 150)


# --- Equal to a plain scan ---

SCALARS = st.sampled_from(["a", "b", 1, 2, True, None])
ITEMS = st.lists(
    st.one_of(
        SCALARS,
        st.dictionaries(st.sampled_from(["name", "port", "protocol"]), SCALARS, max_size=3),
        st.lists(SCALARS, max_size=1),
    ),
    max_size=8,
)
STEPS = st.one_of(
    st.dictionaries(st.sampled_from(["name", "port", "protocol"]), SCALARS, max_size=3).map(
        lambda keys: "k:" + orjson.dumps(keys).decode()
    ),
    SCALARS.map(lambda value: "v:" + orjson.dumps(value).decode()),
)


def fits(step, item):
    """Whether a step selects an item: the rule in its plainest form."""
    wanted = orjson.loads(step[2:])
    if step.startswith("k:"):
        return isinstance(item, dict) and all(name not in item or item[name] == wanted[name] for name in wanted)
    return item == wanted


@given(ITEMS, st.lists(STEPS, max_size=6), SCALARS)
def test_h07_an_index_finds_the_item_that_a_scan_finds(items, steps, more):
    """The position by index is that of the first item that fits, also after an item was appended."""
    index = ItemIndex(items)
    for _ in range(2):
        for step in steps:
            expected = next((position for position, item in enumerate(items) if fits(step, item)), None)
            assert index.find(step) == expected
        items.append({"name": more})
        index.added()


@given(ITEMS, st.lists(STEPS, max_size=6, unique=True))
def test_h07_an_index_finds_the_steps_that_a_scan_finds(items, steps):
    """The steps of an item are those that fit it; of a set, the first of equal values."""
    index = StepIndex({".": {}, **{step: {} for step in steps}, "i:0": {}})
    for item in items:
        expected = [step for step in steps if not isinstance(item, list) and fits(step, item)]
        assert index.steps(item) == (expected if isinstance(item, dict) else expected[:1])


@given(st.lists(st.sampled_from("abcdef"), unique=True), st.sets(st.sampled_from("abcdef")))
def test_h07_items_that_are_cut_are_gone_and_the_others_stay_in_order(names, gone):
    """Cutting several items of a list at once leaves the others as they were; a list without items goes as well."""
    document = {"kind": "x", "list": [{"name": name} for name in names]}
    cut_all(document, [("f:list", keyed(name=name)) for name in sorted(gone)])
    left = [{"name": name} for name in names if name not in gone]
    expected = MISSING if names and not left else left
    assert lookup(document, ("f:list",)) == expected
    assert document["kind"] == "x"


def test_h07_who_owns_what_is_decoded_once_for_all_fields_of_a_drift(monkeypatch):
    """A drift of many list items decodes each field set a fixed number of times."""
    from driftwatch.drift import explain  # noqa: PLC0415  its decoder is counted

    body, fields = variables(200)
    raw = msgspec.Raw(orjson.dumps(fields))
    metadata = Metadata(managedFields=[ManagedFieldsEntry("kubectl-edit", "Update", fieldsV1=raw)])
    decoded = []
    monkeypatch.setattr(explain, "tree", lambda fields, real=explain.tree: (decoded.append(1), real(fields))[1])
    paths = [
        ("f:spec", "f:containers", keyed(name="web"), "f:env", step)
        for step in fields["f:spec"]["f:containers"][keyed(name="web")]["f:env"]
    ]
    explain.explain_difference(explain.Subject(KEY, "apps"), orjson.dumps(body), orjson.dumps({}), metadata, paths)
    assert len(decoded) == 1
