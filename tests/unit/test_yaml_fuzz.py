"""Whatever stands in a file, it is parse, invalid or passed over: never an exception, and never without a line."""

import json
from pathlib import Path

from driftwatch.manifests import parse
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support import yaml_text
from tests.support.hypothesis_profiles import examples

CORPUS = [file.read_bytes() for file in sorted((Path(__file__).parents[1] / "corpus/yaml").rglob("*.*"))]
HEAD = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\nv:"
QUICK = settings(max_examples=examples(300), deadline=None, suppress_health_check=list(HealthCheck))


def check(data: bytes, *, path: str = "app/file.yaml") -> None:
    for known in (False, True):
        parsed = parse.read_file(path, data, "shop", "default", known=known)
        lines = data.count(b"\n") + data.count(b"\r") + 1
        for found in (*parsed.manifests, *parsed.invalid, *parsed.passed_over):
            assert 1 <= found.line <= lines, (found.line, lines, data)
        assert all(each.reason.isprintable() for each in (*parsed.invalid, *parsed.passed_over))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A file of the corpus from which parts were cut, repeated or replaced."""
    data = draw(st.sampled_from(CORPUS))[:5000]
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 40)))
        data = data[:start] + draw(st.binary(max_size=4) | st.just(data[start:end] * 2)) + data[end:]
    return data


@QUICK
@given(st.binary(max_size=200))
@example(b"\xff\xfe\x00")
@example(b"\x00" * 100)
@example(b"1" * 5000)
@example(b"{" * 5000)
def test_d02_any_bytes_are_read_without_a_crash(data: bytes) -> None:
    """Bytes that are no text at all, alone and behind the head of a manifest."""
    check(data)
    check(HEAD + data)


@QUICK
@given(damaged())
def test_d02_damaged_manifests_are_read_without_a_crash(data: bytes) -> None:
    """Files that were manifests once."""
    check(data)


@QUICK
@given(st.lists(yaml_text.values(), max_size=3), st.sampled_from(["---", "...", "--- # x", "%YAML 1.1", "{", "- "]))
def test_d02_generated_documents_are_read_without_a_crash(texts: list[str], between: str) -> None:
    """YAML that is nearly well formed, several documents of it, with odd lines between them."""
    check(f"\n{between}\n".join(HEAD.decode() + text for text in texts).encode())


_fields = st.sampled_from(["apiVersion", "kind", "metadata", "items", "stringData", "data", "labels", "name", "spec"])
_any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from(["v1", "List", "Secret"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_fields, inner, max_size=5),
    max_leaves=20,
)


@QUICK
@given(st.dictionaries(_fields, _any, max_size=9))
def test_d04_objects_of_any_shape_are_read_without_a_crash(document: dict[str, object]) -> None:
    """Mappings with the fields of parse, of the wrong types: Lists of numbers, labels that are lists, and so on."""
    check(json.dumps(document).encode())
    check(json.dumps(document, indent=1).replace('"', "'").encode())
