"""The manifests of a source as they are applied: with driftwatch's label and annotations, without nulls.

The output can be piped into `kubectl apply` or `kubectl diff`, except for Secrets unless their values are requested.
Masked values are not valid base64, so that no API server accepts a masked Secret by mistake.
"""

from collections.abc import Iterator
from typing import Any

import orjson

from driftwatch.drift.explain import HIDDEN
from driftwatch.drift.fieldset import MISSING, Document
from driftwatch.drift.ignore import ignored_paths
from driftwatch.drift.policy import Policies
from driftwatch.escape import printable
from driftwatch.model import SECRET, Manifest, ObjectKey
from driftwatch.oneshot.diff.masking import hidden_paths
from driftwatch.oneshot.diff.presentation import as_yaml


class Rendering:
    """Converts manifests into documents. `show_secrets` keeps the values of Secrets and sensitive fields."""

    def __init__(self, policies: Policies, *, show_secrets: bool) -> None:
        self._policies = policies
        self._show_secrets = show_secrets

    def document(self, source: str, key: ObjectKey, manifest: Manifest) -> dict[str, Any]:
        """Return the object as it would be applied, with its namespace."""
        document: dict[str, Any] = orjson.loads(manifest.body)
        if key.namespace:
            document["metadata"]["namespace"] = key.namespace
        if not self._show_secrets:
            self._mask(source, key, manifest, document)
        return document

    def _mask(self, source: str, key: ObjectKey, manifest: Manifest, document: dict[str, Any]) -> None:
        sensitive = self._policies.of(source, key, manifest).sensitive
        secret = key.group_kind == SECRET
        paths = hidden_paths(document, ignored_paths(document, [], sensitive), secret=secret)
        found = Document(document)
        for path in paths:
            value = found.lookup(path)
            if value is not MISSING:
                found.put(path, _masked(value))


def _masked(value: Any) -> Any:
    """Mask a value. Keys and list lengths stay."""
    if isinstance(value, dict):
        return {name: _masked(each) for name, each in value.items()}
    return [_masked(each) for each in value] if isinstance(value, list) else HIDDEN


def yaml_document(source: str, manifest: Manifest, document: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of one YAML document, with its file, line and source as a comment."""
    yield "---"
    yield printable(f"# {manifest.file}:{manifest.line} ({source})")  # else a file's name could be more YAML
    yield from as_yaml(document)


def json_list(documents: list[dict[str, Any]]) -> bytes:
    """Return all documents as one `List` in JSON."""
    return orjson.dumps({"apiVersion": "v1", "kind": "List", "items": documents}, option=orjson.OPT_INDENT_2)
