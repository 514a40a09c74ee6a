"""Converts a file's documents to manifests, ready for server-side apply.

A repository also holds files that are not manifests: values files, kustomizations, CI. These are skipped with a
reason, never an error. A document that claims to be an object but is malformed is invalid and reported with its line;
the file's other documents are still used. No message contains a value, because any document may be a Secret.
"""

import base64
import hashlib
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import orjson

from driftwatch.drift.annotations import mistakes
from driftwatch.escape import printable
from driftwatch.manifests import yaml_documents
from driftwatch.manifests.yaml_documents import Lines
from driftwatch.model import (
    DESIRED_HASH_ANNOTATION,
    ID_ANNOTATION,
    OPTION_ANNOTATIONS,
    SNOOZE_ANNOTATION,
    SOURCE_LABEL,
    InvalidManifest,
    Manifest,
    ManifestId,
)

SUFFIXES = (".yaml", ".yml", ".json")
_TOOL_GROUPS = frozenset(
    {
        "apiserver.config.k8s.io",
        "audit.k8s.io",
        "config.kubernetes.io",
        "kind.x-k8s.io",
        "kubeadm.k8s.io",
        "kubelet.config.k8s.io",
        "kubeproxy.config.k8s.io",
        "kubescheduler.config.k8s.io",
        "kustomize.config.k8s.io",
        "skaffold",
    }
)
"""API groups of files that configure a tool or a component. No API server serves them."""

_KUSTOMIZATION = frozenset({"kustomization.yaml", "kustomization.yml"})
_CHART = frozenset({"Chart.yaml", "Chart.lock"})
_VALUES = re.compile(r"values([-_.].*)?\.(yaml|yml|json)")
_SERVER_OWNED = (
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
    "uid",
)
_LFS_HEADER = b"version https://git-lfs.github.com/spec/"
_JSON_TYPES = {
    dict: "a mapping",
    list: "a list",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
}


class Parsed(NamedTuple):
    """Contents of one file: manifests, invalid documents, and documents passed over."""

    manifests: list[Manifest]
    invalid: list[InvalidManifest]
    passed_over: list[InvalidManifest]


class _Invalid(Exception):
    """A document is malformed; the message says how."""


class _PassedOver(Exception):
    """A document is not a manifest; the message says why."""


def passed_over_by_name(path: str, charts: frozenset[str]) -> str:
    """Why a file is passed over unread, "" if it is read. `charts` are the directories with a Chart.yaml."""
    file = PurePosixPath(path)
    if file.name in _KUSTOMIZATION:
        return "a kustomization, not an object"
    if file.name in _CHART:
        return "describes a Helm chart, not an object"
    chart = next((str(folder) for folder in file.parents if str(folder) in charts), None)
    if chart is not None:
        return f"part of the Helm chart {chart}"
    return ""


def read_file(path: str, data: bytes, source: str, namespace: str, *, known: bool = False) -> Parsed:
    """Read the manifests of one file.

    `known` means that the file gave manifests before. Then an unreadable document is always reported, never passed
    over, even if it no longer resembles a manifest.
    """
    parsed = Parsed([], [], [])
    if data.startswith(_LFS_HEADER):
        reason = "a Git LFS pointer; LFS is not fetched"
        (parsed.invalid if known else parsed.passed_over).append(_note(path, 1, reason, elsewhere=True))
        return parsed
    lenient = _VALUES.fullmatch(PurePosixPath(path).name) is not None
    for item in yaml_documents.read(data):
        if isinstance(item, yaml_documents.Unreadable):
            is_ours = known or (item.looks_like_manifest and not lenient)
            (parsed.invalid if is_ours else parsed.passed_over).append(_note(path, item.line, item.reason))
            continue
        for document in flatten(item.value, item.lines):
            try:
                parsed.manifests.append(_manifest(path, document, source, namespace))
            except _Invalid as error:
                parsed.invalid.append(_note(path, document.lines.line, str(error)))
            except _PassedOver as error:
                parsed.passed_over.append(_note(path, document.lines.line, str(error)))
    return parsed


def _note(path: str, line: int, reason: str, *, elsewhere: bool = False) -> InvalidManifest:
    """Build an `InvalidManifest`. Escape the reason: it quotes names from Git, which may hold control characters."""
    return InvalidManifest(path, line, printable(reason), elsewhere=elsewhere)


class _Item(NamedTuple):
    value: Any
    lines: Lines
    in_list: bool


def flatten(value: Any, lines: Lines, *, in_list: bool = False) -> Iterator[_Item]:
    """The objects of a `List`, including nested ones; any other value unchanged."""
    kind = value.get("kind") if isinstance(value, dict) else None
    items = value.get("items") if isinstance(value, dict) else None
    if not isinstance(kind, str) or not kind.endswith("List") or not isinstance(items, list):
        yield _Item(value, lines, in_list)
        return
    for number, item in enumerate(items):
        inner = item
        if isinstance(item, dict) and kind != "List":  # as kubectl: the items of a ConfigMapList are ConfigMaps
            inner = {"apiVersion": value.get("apiVersion"), "kind": kind.removesuffix("List")} | item
        place = lines.items[number] if len(lines.items) == len(items) else Lines(lines.line)
        yield from flatten(inner, place, in_list=True)


def _manifest(path: str, item: _Item, source: str, default_namespace: str) -> Manifest:
    document = item.value
    group, version, kind = _group_version_kind(item)
    metadata = document.get("metadata")
    if not isinstance(metadata, dict):
        raise _Invalid(f"{kind} without metadata.name")
    name = metadata.get("name")
    if name is None and metadata.get("generateName") is not None:
        raise _Invalid(f"{kind} with generateName and no name: each apply would create another object; give it a name")
    name = _segment(_text(name, f"{kind}: metadata.name"), f"{kind}: metadata.name")
    namespace = metadata.get("namespace")
    where = f"{kind} {name}: metadata.namespace"
    namespace = default_namespace if namespace is None else _segment(_text(namespace, where), where)
    _check_strings(metadata, "labels", f"{kind} {name}")
    _check_strings(metadata, "annotations", f"{kind} {name}")
    body = _prepare(document, kind if not group else "", f"{kind} {name}")
    if wrong := "; ".join(mistakes(body["metadata"])):
        raise _Invalid(f"{kind} {name}: {wrong}")
    body["metadata"].setdefault("labels", {})[SOURCE_LABEL] = source
    annotations = body["metadata"].setdefault("annotations", {})
    annotations.pop(DESIRED_HASH_ANNOTATION, None)
    annotations.pop(SNOOZE_ANNOTATION, None)  # a snooze is set on the live object only; Git has driftwatch.io/mode
    options = {name: value for name, value in annotations.items() if name in OPTION_ANNOTATIONS}
    annotations[ID_ANNOTATION] = f"{group}/{kind}/{namespace}/{name}"
    try:
        canonical = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
        digest = hashlib.blake2b(canonical, digest_size=8).hexdigest()
        annotations[DESIRED_HASH_ANNOTATION] = digest
        serialised = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError as error:
        raise _Invalid(f"{kind} {name}: has no form in JSON: {error}") from error
    return Manifest(group, version, kind, namespace, name, serialised, digest, path, item.lines.line, options)


def manifest_id(manifest: Manifest) -> ManifestId:
    """The identity of a manifest within its snapshot."""
    return ManifestId(manifest.group, manifest.kind, manifest.namespace, manifest.name)


def _group_version_kind(item: _Item) -> tuple[str, str, str]:
    document = item.value
    mapping = document if isinstance(document, dict) else {}
    api_version, kind = mapping.get("apiVersion"), mapping.get("kind")
    if api_version is None and kind is None:
        reason = "no apiVersion and kind"
        raise (_Invalid(f"an item of a List has {reason}") if item.in_list else _PassedOver(reason))
    if api_version is None or kind is None:
        raise _Invalid(f"has {'kind' if api_version is None else 'apiVersion'} but no "
                       f"{'apiVersion' if api_version is None else 'kind'}")  # fmt: skip
    api_version, kind = _text(api_version, "apiVersion"), _text(kind, "kind")
    group, slash, version = api_version.rpartition("/")
    if "/" in group or not version or (slash and not group):
        raise _Invalid(f"{kind}: apiVersion is GROUP/VERSION, or VERSION alone for the core group")
    if group in _TOOL_GROUPS:
        raise _PassedOver(f"{kind} of {group} is configuration of a tool, not an object")
    if (group, kind) == ("", "Config"):
        raise _PassedOver("a kubeconfig, not an object")
    return group, version, kind


def _text(value: Any, what: str) -> str:
    if isinstance(value, str) and value:
        return value
    if value is None or value == "":
        raise _Invalid(f"{what} is missing")
    raise _Invalid(f"{what} is {_type(value)} and must be a string; quote it")


def _segment(text: str, what: str) -> str:
    """Validate a name as a URL path segment (apimachinery's `IsValidPathSegmentName`, which applies to every kind)."""
    if text in (".", "..") or "/" in text or "%" in text:
        raise _Invalid(f"{what} must not be '.' or '..', nor contain '/' or '%': the object's path is made of it")
    return text


def _type(value: Any) -> str:
    return _JSON_TYPES.get(type(value), "null")


def _check_strings(metadata: dict[str, Any], field: str, whose: str) -> None:
    mapping = metadata.get(field)
    if mapping is None:
        return
    if not isinstance(mapping, dict):
        raise _Invalid(f"{whose}: metadata.{field} is {_type(mapping)} and must be a mapping")
    for key, value in mapping.items():
        if value is not None and not isinstance(value, str):
            raise _Invalid(f"{whose}: metadata.{field}: the value of {key!r} is {_type(value)}; quote it")


def _prepare(document: dict[str, Any], core_kind: str, whose: str) -> dict[str, Any]:
    """Copy a document without the fields that must not be sent by server-side apply.

    A null would claim a field that Git does not set. The server owns `status` and the metadata removed here.
    """
    body = {key: _without_nulls(value) for key, value in document.items() if value is not None and key != "status"}
    metadata = body["metadata"]
    for field in (*_SERVER_OWNED, "namespace"):
        metadata.pop(field, None)
    if core_kind == "Secret" and "stringData" in body:
        _merge_string_data(body, whose)
    return body


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_nulls(inner) for inner in value]
    return value


def _merge_string_data(body: dict[str, Any], whose: str) -> None:
    """Merge `stringData` into `data`. The server does so on create and update, but under apply owns both separately."""
    texts = body.pop("stringData")
    if not isinstance(texts, dict):
        raise _Invalid(f"{whose}: stringData is {_type(texts)} and must be a mapping")
    data = body.setdefault("data", {})
    if not isinstance(data, dict):
        raise _Invalid(f"{whose}: data is {_type(data)} and must be a mapping")
    for key, text in texts.items():
        if not isinstance(text, str):
            raise _Invalid(f"{whose}: stringData: the value of {key!r} is {_type(text)}; quote it")
        data[key] = base64.b64encode(text.encode("utf-8", "replace")).decode()
