"""Masks secret values in a comparison, so that a reader still sees whether they are equal.

The placeholders are not derived from the values: a hash of a short password reveals the password.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Any

import orjson

from driftwatch.drift.explain import ANNOTATIONS, BOOKKEEPING, COPIES, HIDDEN
from driftwatch.drift.fieldset import MISSING, Document, Path, lookup

HIDDEN_LIVE = "<hidden: live>"
HIDDEN_DECLARED = "<hidden: declared>"
SHORT = 5  # characters

_SECRET_PATHS: tuple[Path, ...] = (("f:data",), ("f:stringData",))


def hidden_paths(document: Any, sensitive: list[Path], *, secret: bool) -> list[Path]:
    """Return the paths to hide in an object. In a Secret, that includes annotations other than driftwatch's own."""
    paths = list(sensitive)
    if secret:
        annotations = lookup(document, ANNOTATIONS)
        names = annotations if isinstance(annotations, dict) else ()
        paths += [*_SECRET_PATHS, *((*ANNOTATIONS, f"f:{name}") for name in names if name not in BOOKKEEPING)]
    if paths:
        paths += COPIES
    return paths


def mask(live: Any, wanted: Any, paths: list[Path]) -> None:
    """Mask the values at the paths in both documents, in place. Keys of mappings stay."""
    in_cluster, in_git = Document(live), Document(wanted)
    for path in paths:
        before, after = masked(in_cluster.lookup(path), in_git.lookup(path))
        for document, value in ((in_cluster, before), (in_git, after)):
            if value is not MISSING:
                document.put(path, value)


def masked(live: Any, declared: Any) -> tuple[Any, Any]:
    """Replace two values by placeholders. Equal values get the same placeholder."""
    if isinstance(live, dict) and (isinstance(declared, dict) or declared is MISSING):
        names = {*live, *(declared if isinstance(declared, dict) else ())}
    elif isinstance(declared, dict) and live is MISSING:
        names = {*declared}
    else:
        if live is MISSING or declared is MISSING or live == declared:
            return live if live is MISSING else HIDDEN, declared if declared is MISSING else HIDDEN
        return HIDDEN_LIVE, HIDDEN_DECLARED
    pairs = {name: masked(_get(live, name), _get(declared, name)) for name in names}
    sides = [{name: pair[side] for name, pair in pairs.items() if pair[side] is not MISSING} for side in (0, 1)]
    return (
        sides[0] if isinstance(live, dict) else MISSING,
        sides[1] if isinstance(declared, dict) else MISSING,
    )


def _get(value: Any, name: str) -> Any:
    return value.get(name, MISSING) if isinstance(value, dict) else MISSING


def scrub(text: str, documents: list[Any], paths: list[Path]) -> str:
    """Remove the values at the paths from an error message of the API server, which quotes values."""
    values = {
        value for document in map(Document, documents) for path in paths for value in _scalars(document.lookup(path))
    }
    for value in sorted(values, key=len, reverse=True):
        # Short values are replaced only as whole words, because they also occur inside unrelated words.
        text = (
            re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", HIDDEN, text)
            if len(value) <= SHORT
            else text.replace(value, HIDDEN)
        )
    return text


def _scalars(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _scalars(each)
    elif isinstance(value, str):
        if value:
            yield value
            yield orjson.dumps(value).decode()[1:-1]
        try:
            plain = base64.b64decode(value, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return
        if plain:
            yield plain
    elif isinstance(value, bool | int | float):
        yield orjson.dumps(value).decode()
