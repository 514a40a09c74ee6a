"""Policies: modes, handling of added fields and ignore rules; global, per source, per object.

A policy is computed once for each manifest in force. Objects with equal policies share one value. The most specific
setting wins: the object's annotation in Git, then a rule that targets it, then its source, then the whole
configuration.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from driftwatch.drift.annotations import Additions, Recreate
from driftwatch.drift.rules import Rule
from driftwatch.model import (
    ADDITIONS_ANNOTATION,
    MODE_ANNOTATION,
    RECREATE_ANNOTATION,
    Manifest,
    Mode,
    ObjectKey,
)


class Policy(msgspec.Struct, frozen=True):
    """The policy of one object. `ignore` and `sensitive` are the rules that target it.

    `recreate` says whether the object is created again after somebody deletes it. `replace` says whether driftwatch may
    delete it when Git changes an immutable field.
    """

    mode: Mode = Mode.HEAL
    additions: Additions = Additions.REVERT
    ignore: tuple[Rule, ...] = ()
    sensitive: tuple[Rule, ...] = ()
    recreate: bool = True
    replace: bool = False


class SourcePolicy(msgspec.Struct, frozen=True):
    """The settings of a source for all of its objects."""

    mode: Mode = Mode.HEAL
    additions: Additions = Additions.REVERT
    rules: tuple[Rule, ...] = ()
    recreate: Recreate = Recreate.NEVER


class Policies:
    """Computes the policy of each object. Equal policies are shared."""

    def __init__(self, sources: dict[str, SourcePolicy], rules: Sequence[Rule] = ()) -> None:
        self._sources = sources
        self._rules = tuple(rules)
        self._shared: dict[Any, Policy] = {}

    @property
    def sources(self) -> list[str]:
        """The names of all sources."""
        return list(self._sources)

    @property
    def healed_sources(self) -> set[str]:
        """Sources whose objects may be written to the cluster."""
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
    """The enum member that an annotation names. None for an unknown value, which only a live object can have."""
    return values(said) if said in set(values) else None
