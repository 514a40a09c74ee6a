"""Edits behind Git's back, by every verb and patch type that the API server has, under anybody's name."""

import copy
import json
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any, NamedTuple
from urllib.parse import urlencode

from hypothesis import strategies as st

from tests.support.live import Live
from tests.support.strategies import GONE, Change, Item, KindOf, Manifest, Member, Path

PEOPLE = ("kubectl-edit", "kubectl-patch", "kubectl", "kubectl-set", "k9s", "oc", "node-fetch")
CONTROLLERS = ("certificate-controller", "injector", "rancher")
SPOOF = "driftwatch"
MANAGERS = (*PEOPLE, *CONTROLLERS, SPOOF)


class Verb(StrEnum):
    """How an edit reaches the API server."""

    MERGE = "merge patch"
    STRATEGIC = "strategic merge patch"
    JSON = "JSON patch"
    REPLACE = "replace"
    APPLY = "apply"
    APPLY_FORCE = "apply by force"
    DELETE = "delete"
    RECREATE = "delete and create"
    STRIP = "strip managedFields"
    STATUS = "status"
    SCALE = "scale"


CHANGING = (Verb.MERGE, Verb.STRATEGIC, Verb.JSON, Verb.REPLACE, Verb.APPLY, Verb.APPLY_FORCE)


class Edit(NamedTuple):
    """One edit of one object: by `target`, the position of its manifest."""

    target: int
    verb: Verb
    manager: str
    changes: tuple[Change, ...]


class Done(NamedTuple):
    """What came of an edit: the HTTP code, and the object before and after; `GONE` where there is none."""

    code: int
    before: Any
    after: Any


def edits(
    kinds: list[KindOf], manifests: list[Manifest], managers: tuple[str, ...] = MANAGERS, *, only_fields: bool = False
) -> st.SearchStrategy[Edit]:
    """Edits of any of these objects."""

    def of_one(target: int) -> st.SearchStrategy[Edit]:
        kind, manifest = kinds[target], manifests[target]
        verbs = [verb for verb in CHANGING if kind.strategic or verb is not Verb.STRATEGIC]
        if not only_fields:
            verbs = [*verbs * 2, Verb.DELETE, Verb.RECREATE, Verb.STRIP]
            verbs += [Verb.STATUS] if kind.status else []
            verbs += [Verb.SCALE] if kind.scales else []
        return st.builds(
            Edit, st.just(target), st.sampled_from(verbs), st.sampled_from(managers), kind.changes(manifest)
        )

    return st.integers(0, len(manifests) - 1).flatmap(of_one)


def perform(live: Live, kind: KindOf, manifest: Manifest, edit: Edit) -> Done:
    """Do it, once; what refuses is the API server, and that may well be."""
    return _DOING.get(edit.verb, _patch)(live, kind, manifest, edit)


def _patch(live: Live, kind: KindOf, manifest: Manifest, edit: Edit) -> Done:
    before = live.get(manifest)
    if before is None:
        return Done(404, GONE, GONE)
    after = changed(before, edit.changes)
    path, query = live.path(manifest), {"fieldManager": edit.manager}
    verb, settings = edit.verb, [change for change in edit.changes if change.value is not GONE]
    if verb is Verb.REPLACE:
        code, answer = live.request("PUT", f"{path}?{urlencode(query)}", after)
        return Done(code, before, answer)
    if verb in (Verb.APPLY, Verb.APPLY_FORCE) and settings:  # an apply takes nothing away
        name = {"name": manifest["metadata"]["name"]}
        body: Any = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": name}
        if edit.manager == SPOOF and verb is Verb.APPLY:
            body = _with_tracking(manifest, before)
        body = changed(body, settings)
        if verb is Verb.APPLY_FORCE:
            query["force"] = "true"
        media_type = "apply-patch+yaml"
    elif verb is Verb.STRATEGIC and kind.strategic:
        body, media_type = _strategic(edit.changes), "strategic-merge-patch+json"
    elif verb is Verb.JSON:
        body, media_type = list(json_patch(before, after)), "json-patch+json"
    else:
        body, media_type = merge_patch(before, after), "merge-patch+json"
    code, answer = live.request("PATCH", f"{path}?{urlencode(query)}", body, media_type=f"application/{media_type}")
    return Done(code, before, answer)


def _with_tracking(manifest: Manifest, live: Manifest) -> Manifest:
    """All that the daemon would apply, so that an apply under its name leaves the same ownership behind."""
    body = copy.deepcopy(manifest)
    for field in ("labels", "annotations"):
        found = live["metadata"].get(field, {})
        tracking = {name: text for name, text in found.items() if name.startswith("driftwatch.io/")}
        body["metadata"][field] = {**body["metadata"].get(field, {}), **tracking}
    return body


def _delete(live: Live, _kind: KindOf, manifest: Manifest, _edit: Edit) -> Done:
    code, _ = live.request("DELETE", f"{live.path(manifest)}?propagationPolicy=Background")
    return Done(code, {}, GONE)


def _recreate(live: Live, kind: KindOf, manifest: Manifest, edit: Edit) -> Done:
    """Delete it and create another of that name, now with our label and now without."""
    found = (live.get(manifest) or {"metadata": {}})["metadata"].get("labels", {})
    source = {name: value for name, value in found.items() if name == "driftwatch.io/source"}
    _delete(live, kind, manifest, edit)
    body = changed(manifest, edit.changes)
    if edit.manager in PEOPLE[:2]:
        body["metadata"]["labels"] = {**body["metadata"].get("labels", {}), **source}
    collection = live.path(manifest).rpartition("/")[0]
    code, answer = live.request("POST", f"{collection}?{urlencode({'fieldManager': edit.manager})}", body)
    return Done(code, GONE, answer)


def _strip(live: Live, _kind: KindOf, manifest: Manifest, edit: Edit) -> Done:
    path = f"{live.path(manifest)}?{urlencode({'fieldManager': edit.manager})}"
    patch = {"metadata": {"managedFields": [{}]}}
    code, answer = live.request("PATCH", path, patch, media_type="application/merge-patch+json")
    return Done(code, {}, answer)


def _status(live: Live, kind: KindOf, manifest: Manifest, edit: Edit) -> Done:
    path = f"{live.path(manifest)}/status?{urlencode({'fieldManager': edit.manager})}"
    code, answer = live.request("PATCH", path, {"status": kind.status}, media_type="application/merge-patch+json")
    return Done(code, {}, answer)


def _scale(live: Live, _kind: KindOf, manifest: Manifest, edit: Edit) -> Done:
    path = f"{live.path(manifest)}/scale?{urlencode({'fieldManager': edit.manager})}"
    code, answer = live.request("PATCH", path, {"spec": {"replicas": 3}}, media_type="application/merge-patch+json")
    return Done(code, {}, answer)


_DOING: dict[Verb, Callable[[Live, KindOf, Manifest, Edit], Done]] = {
    Verb.DELETE: _delete,
    Verb.RECREATE: _recreate,
    Verb.STRIP: _strip,
    Verb.STATUS: _status,
    Verb.SCALE: _scale,
}


# --- What an edit makes of an object ---


def changed(found: Manifest, changes: tuple[Change, ...] | list[Change]) -> Manifest:
    """The object with the changes made to it; what a path needs on its way is made as well."""
    value = copy.deepcopy(found)
    for change in changes:
        _change(value, change.path, change.value)
    return value


def _change(node: Any, path: Path, value: Any) -> None:
    step, rest = path[0], path[1:]
    if isinstance(step, str):
        place, present = step, node.get(step) is not None
    else:
        place = next((number for number, item in enumerate(node) if is_at(item, step)), len(node))
        present = place < len(node)
    if value is GONE and not present:
        return
    if not present and not isinstance(step, str):
        node.append(None)
    if rest:
        if not present:
            node[place] = dict(step.keys) if isinstance(step, Item) else {} if isinstance(rest[0], str) else []
        _change(node[place], rest, value)
    elif value is GONE:
        del node[place]
    elif present and step in ("labels", "annotations"):
        node[place].update(value)
    else:
        node[place] = copy.deepcopy(value)


def is_at(item: Any, step: Item | Member) -> bool:
    if isinstance(step, Member):
        return bool(item == step.value)
    return all(item.get(name, "TCP" if name == "protocol" else None) == value for name, value in step.keys)


def merge_patch(before: Any, after: Any) -> Any:
    """The JSON merge patch (RFC 7386) from one value to the other."""
    patch: dict[str, Any] = {name: None for name in before if name not in after}
    for name, value in after.items():
        if name not in before:
            patch[name] = value
        elif before[name] != value:
            both = isinstance(before[name], dict) and isinstance(value, dict)
            patch[name] = merge_patch(before[name], value) if both else value
    return patch


def json_patch(before: Any, after: Any, at: str = "") -> Iterator[dict[str, Any]]:
    """A JSON patch (RFC 6902) from one value to the other."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted(before.keys() | after.keys()):
            to = f"{at}/{name.replace('~', '~0').replace('/', '~1')}"
            if name not in after:
                yield {"op": "remove", "path": to}
            elif name not in before:
                yield {"op": "add", "path": to, "value": after[name]}
            else:
                yield from json_patch(before[name], after[name], to)
    elif isinstance(before, list) and isinstance(after, list) and after[: len(before)] == before:
        yield from ({"op": "add", "path": f"{at}/-", "value": item} for item in after[len(before) :])
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from json_patch(one, other, f"{at}/{number}")
    elif before != after:
        yield {"op": "replace", "path": at, "value": after}


def _strategic(changes: tuple[Change, ...]) -> Manifest:
    """The strategic merge patch that makes these changes: items of lists are found by their keys."""
    patch: Manifest = {}
    for change in changes:
        node: Any = patch
        for step, following in zip(change.path, (*change.path[1:], None), strict=True):
            node = _strategic_step(node, step, following, change.value)
    return patch


def _strategic_step(node: Any, step: Any, following: Any, value: Any) -> Any:
    if isinstance(step, str):
        if following is None:
            node[step] = None if value is GONE else value
            return node
        return node.setdefault(step, {} if isinstance(following, str) else [])
    item = dict(step.keys)
    if following is None:
        item = {"$patch": "delete", **item} if value is GONE else {**item, **value}
    node.append(item)
    return item


def describe(edit: Edit, manifest: Manifest) -> str:
    """An edit in a line, for failures."""
    changes = ", ".join(
        f"{'/'.join(map(str, change.path))} → {'-' if change.value is GONE else json.dumps(change.value)}"
        for change in edit.changes
    )
    return f"{edit.manager}: {edit.verb} of {manifest['kind']} {manifest['metadata']['name']}: {changes}"
