"""What operators allow: modes, added fields, ignore rules; global, per source, per object.

A policy is worked out once for each manifest in force, and shared by all objects that have the same one. The nearest
word wins: the object's annotation in Git, then a rule that targets it, then its source, then the whole configuration.
"""

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

import jsonpath
import msgspec
import orjson
from jsonpath.selectors import JSONPathSelector, KeySelector, KeysFilter, KeysSelector, NameSelector

from driftwatch.drift.interactive import INTERACTIVE_MANAGERS
from driftwatch.drift.options import Additions, Recreate
from driftwatch.model import (
    ADDITIONS_ANNOTATION,
    DESIRED_HASH_ANNOTATION,
    ID_ANNOTATION,
    MODE_ANNOTATION,
    RECREATE_ANNOTATION,
    SOURCE_LABEL,
    Manifest,
    Mode,
    ObjectKey,
)

# Which object it is, and that it is ours: left to others, an object would be lost to us, or written at every start.
NEVER_IGNORED = (
    ("apiVersion",),
    ("kind",),
    ("metadata", "name"),
    ("metadata", "namespace"),
    ("metadata", "labels", SOURCE_LABEL),
    ("metadata", "annotations", ID_ANNOTATION),
    ("metadata", "annotations", DESIRED_HASH_ANNOTATION),
)

_QUOTED = re.compile(r""" "(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*' """, re.VERBOSE)
_FILTER = re.compile(rf"(?:{_QUOTED.pattern}|[^]\"'])*", re.VERBOSE)
_NAME = re.compile(rf"{_QUOTED.pattern} | (?<![\w.$]) ([A-Za-z_]\w*) (?![\w(])", re.VERBOSE)  # no function's name


class Target(msgspec.Struct, frozen=True):
    """Which objects a rule is about: name patterns that must all match, and labels that Git declares."""

    group: str = "*"
    kind: str = "*"
    namespace: str = "*"
    name: str = "*"
    labels: tuple[tuple[str, str], ...] = ()

    def matches(self, key: ObjectKey, manifest: Manifest) -> bool:
        """Whether the rule is about this object."""
        patterns = (self.group, self.kind, self.namespace, self.name)
        if not all(pattern == "*" or fnmatchcase(part, pattern) for pattern, part in zip(patterns, key, strict=True)):
            return False
        if not self.labels:
            return True
        labels = orjson.loads(manifest.body)["metadata"].get("labels", {})
        return all(name in labels and fnmatchcase(str(labels[name]), pattern) for name, pattern in self.labels)


class FieldOwner(msgspec.Struct, frozen=True):
    """Fields by who owns them: name patterns of manager and subresource."""

    manager: str
    subresource: str = "*"


class Rule(msgspec.Struct, frozen=True):
    """Fields that are not fought over (or, `sensitive`, never shown), or a mode, for the objects of `target`.

    `pointers` are JSON pointers already split, `paths` compiled JSONPaths. A rule may name both fields and owners: then
    the fields are ignored while one of these owners has them. A `kept` rule is about fields that Git does not declare:
    they stay whoever adds them, and its owners are nobody's hands.
    """

    name: str
    target: Target = Target()
    reason: str = ""
    pointers: tuple[tuple[str, ...], ...] = ()
    paths: tuple[Any, ...] = ()
    owners: tuple[FieldOwner, ...] = ()
    mode: Mode | None = None
    recreate: bool = False
    sensitive: bool = False
    kept: bool = False
    needle: bytes = b""  # a manifest without these bytes has no field that the rule is about
    built_in: bool = False

    @property
    def ignores_fields(self) -> bool:
        """Whether the rule takes fields out of the fight."""
        return bool(self.pointers or self.paths or self.owners) and not (self.sensitive or self.kept)


class Policy(msgspec.Struct, frozen=True):
    """What holds for one object. `ignore` and `sensitive` are the rules that target it.

    `recreate` says whether it is created anew when somebody deletes it, `replace` whether we may delete it ourselves
    where Git changes a field that cannot be changed.
    """

    mode: Mode = Mode.HEAL
    additions: Additions = Additions.REVERT
    ignore: tuple[Rule, ...] = ()
    sensitive: tuple[Rule, ...] = ()
    recreate: bool = True
    replace: bool = False


class SourcePolicy(msgspec.Struct, frozen=True):
    """What a source says for all of its objects."""

    mode: Mode = Mode.HEAL
    additions: Additions = Additions.REVERT
    rules: tuple[Rule, ...] = ()
    recreate: Recreate = Recreate.NEVER


class Policies:
    """Works out and remembers the policy of each object."""

    def __init__(self, sources: dict[str, SourcePolicy], rules: Sequence[Rule] = ()) -> None:
        self._sources = sources
        self._rules = tuple(rules)
        self._shared: dict[Any, Policy] = {}

    @property
    def sources(self) -> list[str]:
        """The sources that there are."""
        return list(self._sources)

    @property
    def healed_sources(self) -> set[str]:
        """Sources for which anything may be written to the cluster."""
        return {name for name, source in self._sources.items() if source.mode is Mode.HEAL}

    def mode(self, source: str) -> Mode:
        """The mode of a source as a whole."""
        return self._sources[source].mode

    def of(self, source: str, key: ObjectKey, manifest: Manifest) -> Policy:
        """The policy of an object under its manifest."""
        base = self._sources[source]
        rules = [
            rule
            for rule in (*base.rules, *self._rules)
            if rule.needle in manifest.body and rule.target.matches(key, manifest)
        ]
        ruled = next((rule for rule in rules if rule.mode is not None), None)
        said = manifest.options
        mode = _known(Mode, said.get(MODE_ANNOTATION)) or (ruled.mode if ruled else None) or base.mode
        additions = _known(Additions, said.get(ADDITIONS_ANNOTATION)) or base.additions
        ignore = tuple(rule for rule in rules if rule.ignores_fields)
        sensitive = tuple(rule for rule in rules if rule.sensitive)
        recreate = mode is not Mode.IGNORE or bool(ruled and ruled.mode is Mode.IGNORE and ruled.recreate)
        replace = (_known(Recreate, said.get(RECREATE_ANNOTATION)) or base.recreate) is Recreate.IMMUTABLE
        identity = (mode, additions, tuple(map(id, ignore)), tuple(map(id, sensitive)), recreate, replace)
        found = self._shared.get(identity)
        if found is None:
            found = self._shared[identity] = Policy(mode, additions, ignore, sensitive, recreate, replace)
        return found


def _known(values: Any, said: str | None) -> Any:
    """The enum's member that an annotation names. One that it does not know is on a live object only, and unsaid."""
    return values(said) if said in set(values) else None


def _any_glob(patterns: Sequence[str], name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def parse_pointer(text: str) -> tuple[str, ...]:
    """Split a JSON pointer (RFC 6901). Raises `ValueError` for a malformed one."""
    if not text.startswith("/") or text == "/":
        raise ValueError(f"{text!r} is no JSON pointer; one looks like /spec/replicas")
    steps = text[1:].split("/")
    if any("~" in step.replace("~0", "").replace("~1", "") for step in steps):
        raise ValueError(f"{text!r} is no JSON pointer: ~ stands for itself as ~0, and / as ~1")
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in steps)


def parse_path(text: str) -> Any:
    """Compile a JSONPath (RFC 9535); `$.` and the `@.` of a filter may be left out. Raises `ValueError`."""
    written = text if text.startswith("$") else f"$.{text.lstrip('.')}"
    written = _with_current_node(written)
    try:
        path = jsonpath.compile(written)
    except jsonpath.JSONPathError as error:
        raise ValueError(f"{text!r} is no JSONPath: {str(error).splitlines()[0]}") from error
    selectors = [selector for query in _queries(path) for selector in _selectors(query)]
    if any(isinstance(selector, KeySelector | KeysSelector | KeysFilter) for selector in selectors):
        raise ValueError(f"{text!r} is no JSONPath: ~ would select the names of fields, and not the fields")
    return path


def single_fields(path: Any) -> list[tuple[str, ...]]:
    """The fields that a compiled JSONPath names one by one, as split pointers; () is the whole object."""
    found = []
    for query in _queries(path):
        names = [selector.name for selector in _selectors(query) if isinstance(selector, NameSelector)]
        if query.singular_query() and len(names) == len(query.segments):
            found.append(tuple(names))
    return found


def _queries(path: Any) -> Iterator[jsonpath.JSONPath]:
    """The queries of a path: beyond RFC 9535, several may be joined by | and &."""
    if isinstance(path, jsonpath.CompoundJSONPath):
        yield from _queries(path.path)
        for _, joined in path.paths:
            yield joined
    else:
        yield path


def _selectors(query: jsonpath.JSONPath) -> list[JSONPathSelector]:
    return [selector for segment in query.segments for selector in segment.selectors]


def _with_current_node(text: str) -> str:
    """`[?name=="X"]`, as kubectl users write it, means `[?@.name=="X"]`."""
    head, *filters = text.split("[?")
    return "[?".join([head, *map(_from_current_node, filters)])


def _from_current_node(text: str) -> str:
    """A filter and what follows it, every name in it taken from the current node; one that uses `@` is left alone."""
    written = _FILTER.match(text)
    expression = written[0] if written else ""
    if "@" in _QUOTED.sub("", expression):
        return text

    def named(found: re.Match[str]) -> str:
        return found[0] if found[1] in (None, "true", "false", "null") else f"@.{found[1]}"

    return _NAME.sub(named, expression) + text[len(expression) :]


def _rule(name: str, reason: str, kind: tuple[str, str], path: str, owners: Sequence[FieldOwner] = ()) -> Rule:
    field = path.rpartition(".")[2]
    return Rule(
        name,
        Target(*kind),
        reason,
        paths=(parse_path(path),),
        owners=tuple(owners),
        needle=f'"{field}":'.encode(),
        built_in=True,
    )


def _kept(name: str, reason: str, *pointers: str, owners: Sequence[FieldOwner] = ()) -> Rule:
    return Rule(
        name,
        reason=reason,
        pointers=tuple(map(parse_pointer, pointers)),
        owners=tuple(owners),
        kept=True,
        built_in=True,
    )


BUILT_IN_RULES = (
    _kept(
        "rollout-restart",
        "A rollout restart is a wish for new Pods, not for another manifest.",
        "/spec/template/metadata/annotations/kubectl.kubernetes.io~1restartedAt",
        owners=[FieldOwner("kubectl-rollout")],
    ),
    _kept(
        "kubectl-notes",
        "kubectl's own notes change nothing of what an object does.",
        "/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration",
        "/metadata/annotations/kubernetes.io~1change-cause",
    ),
    _kept(
        "prune-wish",
        "Whether an object may be pruned can be said on the live object, too.",
        "/metadata/annotations/driftwatch.io~1prune",
    ),
    _kept(
        "undeclared-replicas",
        "Git that says nothing of replicas leaves scaling to others; reverting it would scale to one.",
        "/spec/replicas",
    ),
    _rule(
        "autoscaled-replicas",
        "A HorizontalPodAutoscaler owns the number of replicas once it has scaled; scaled by hand it is drift.",
        ("*", "*"),
        "$.spec.replicas",
        owners=[
            FieldOwner("kube-controller-manager", "scale"),
            FieldOwner("vpa-*", "scale"),
            FieldOwner("keda*", "scale"),
        ],
    ),
    _rule(
        "aggregated-cluster-roles",
        "The rules of an aggregated ClusterRole are written by the controller that aggregates them.",
        ("rbac.authorization.k8s.io", "ClusterRole"),
        "$.rules",
        owners=[FieldOwner("clusterrole-aggregation-controller"), FieldOwner("kube-controller-manager")],
    ),
    _rule(
        "mutating-webhook-ca-bundle",
        "The CA bundle of a webhook is put in by whoever issues its certificate.",
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"),
        "$.webhooks[*].clientConfig.caBundle",
    ),
    _rule(
        "validating-webhook-ca-bundle",
        "The CA bundle of a webhook is put in by whoever issues its certificate.",
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
        "$.webhooks[*].clientConfig.caBundle",
    ),
    _rule(
        "crd-conversion-ca-bundle",
        "The CA bundle of a conversion webhook is put in by whoever issues its certificate.",
        ("apiextensions.k8s.io", "CustomResourceDefinition"),
        "$.spec.conversion.webhook.clientConfig.caBundle",
    ),
    _rule(
        "apiservice-ca-bundle",
        "The CA bundle of an aggregated API is put in by whoever issues its certificate.",
        ("apiregistration.k8s.io", "APIService"),
        "$.spec.caBundle",
    ),
)


class Managers:
    """Which field managers people write under, by name patterns, and which of their additions are kept all the same.

    What a pattern in `trusted`, or an owner of a `kept` rule, matches is nobody's hand.
    """

    def __init__(
        self, interactive: Sequence[str] = (), trusted: Sequence[str] = (), rules: Sequence[Rule] = BUILT_IN_RULES
    ) -> None:
        kept = [rule for rule in rules if rule.kept]
        self.interactive = (*INTERACTIVE_MANAGERS, *interactive)
        self.trusted = (*(owner.manager for rule in kept for owner in rule.owners), *trusted)
        self.is_interactive = lru_cache(maxsize=1024)(self._is_interactive)
        pointers = [pointer for rule in kept for pointer in rule.pointers]
        self._annotations = {pointer[-1] for pointer in pointers if pointer[-2:-1] == ("annotations",)}
        self._fields = {tuple(f"f:{step}" for step in pointer) for pointer in pointers}

    def _is_interactive(self, manager: str) -> bool:
        return not _any_glob(self.trusted, manager) and _any_glob(self.interactive, manager)

    def keeps(self, path: tuple[str, ...]) -> bool:
        """Whether an added field stays whoever added it; an annotation does wherever in the object it is."""
        if path[-2:-1] == ("f:annotations",):
            return path[-1][2:] in self._annotations
        return path in self._fields
