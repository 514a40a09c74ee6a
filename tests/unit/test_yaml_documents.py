"""Files are read as kubectl reads them; what kubectl would lose in silence is an error, with its line."""

import json
from collections.abc import Callable

import pytest
from driftwatch.manifests import yaml_documents
from driftwatch.manifests.yaml_documents import Document, Unreadable
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.growth import assert_linear
from tests.support.hypothesis_profiles import examples

ONE = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"


def read(text):
    return list(yaml_documents.read(text if isinstance(text, bytes) else text.encode()))


def value(text):
    (document,) = read(text)
    assert isinstance(document, Document), document
    return document.value


def problem(text):
    (document,) = read(text)
    assert isinstance(document, Unreadable), document
    return document


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "---\n# a\n---\n\n---\n", "~\n", "\ufeff"])
def test_d01_empty_and_comment_only_documents_are_nothing(text):
    """A file without content declares nothing and is no error."""
    assert read(text) == []


def test_d01_each_document_has_the_line_of_its_first_content():
    """Lines count from the file's first, also below comments and separators."""
    text = f"# head\n---\n{ONE}---\n\n# more\n{ONE}--- # last\n{ONE}"
    assert [document.lines.line for document in read(text)] == [3, 9, 13]


def test_d01_items_of_a_list_have_their_own_lines():
    """A problem in a List is found without counting items."""
    text = "kind: List\nitems:\n- a: 1\n- kind: List\n  items:\n  - b: 1\n\n  - c: 1\n"
    (document,) = read(text)
    assert [item.line for item in document.lines.items] == [3, 4]
    assert [item.line for item in document.lines.items[1].items] == [6, 8]


def test_d01_items_of_a_json_list_have_their_own_lines():
    """The same in JSON."""
    (document,) = read('{"kind": "List",\n "items": [\n  {"a": 1},\n  {"b": 2}\n]}')
    assert [item.line for item in document.lines.items] == [3, 4]


def test_d01_json_is_read_also_glued_together_and_between_separators():
    """`kubectl get -o json` twice into one file is two documents."""
    first, second = '{"a": 1e3, "b": "\\ud83d\\ude00"}', '{\n\t"c": 1.0\n}'
    assert [document.value for document in read(first + second)] == [{"a": 1000, "b": "😀"}, {"c": 1}]
    assert [document.lines.line for document in read(f"{first}\n---\n\n{second}\n")] == [1, 4]


def test_d02_a_flow_mapping_that_is_no_json_is_yaml():
    """A document may begin with a brace and still be YAML, as kubectl takes it."""
    assert value("{a: on, b: [1,]}") == {"a": True, "b": [1]}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_d02_byte_order_marks_are_understood(encoding):
    """UTF-8 with and without a mark, UTF-16 with one."""
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    assert value((mark + ONE + "data: {a: é}\n").encode(encoding))["data"] == {"a": "é"}


def test_d02_a_mark_within_the_file_is_passed_over():
    """Files glued together by Windows tools have one at each seam."""
    assert len(read(f"{ONE}---\n\ufeff{ONE}")) == 2


def test_d02_carriage_returns_are_no_part_of_values():
    """A file with CRLF has the same values and the same lines."""
    documents_ = read(f"{ONE}data:\n  a: |\n    x\n    y\n---\n{ONE}".replace("\n", "\r\n"))
    assert documents_[0].value["data"] == {"a": "x\ny\n"}
    assert documents_[1].lines.line == 9


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x: &x {a: 1, b: 2}\nd: {<<: *x, a: 3}\n", {"a": 3, "b": 2}),
        ("x: &x {a: 1, b: 2}\nd: {a: 3, <<: *x}\n", {"a": 1, "b": 2}),
        ("x: &x {a: 1}\ny: &y {a: 5, c: 3}\nd: {<<: [*x, *y]}\n", {"a": 1, "c": 3}),
        ("x: &x {a: 1}\nd: {'<<': 1}\n", {"<<": 1}),
        ("x: &x k\nd: {*x : 1, b: *x}\n", {"k": 1, "b": "k"}),
    ],
)
def test_d02_merge_keys_and_aliases_do_what_they_do_in_kubectl(text, expected):
    """Merged keys win over keys above them, and the first of a sequence over the others."""
    assert value(text)["d"] == expected


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "duplicate key 'a'"),
        ("b:\n  1: x\n  '1': y\n", 3, "duplicate key '1'"),
        ('{"a": 1,\n "a": 2}', 2, "duplicate key 'a'"),
        ("a: !vault x\n", 1, "unknown tag !vault"),
        ("a: 1\nb: !!python/object:os.system {}\n", 2, "unknown tag !!python/object"),
        ("a: !!int x\n", 1, "no !!int"),
        ("a: !!int 1.5\n", 1, "no !!int"),
        ("a: !!int 1.0\n", 1, "no !!int"),
        ("a:\n  18446744073709551615: 1\n", 2, "beyond 64 bits"),
        ("a: {!!int 9223372036854775808: 1}\n", 1, "beyond 64 bits"),
        ("a: !!binary a G k =\n", 1, "base64"),
        ("a: !!binary '_w=='\n", 1, "base64"),
        ("a: {~: 1}\n", 1, "key is null"),
        ("a:\n  ? [x]\n  : 1\n", 2, "key is itself"),
        ("a: &a [*a]\n", 1, "contains itself"),
        ("a: {<<: 1}\n", 1, "`<<` wants"),
        ("a: *nobody\n", 1, "undefined alias"),
        ("a:\n\tb: 1\n", 2, "cannot start any token"),
        ("a: \x01\n", 1, "control characters"),
        ("a: [1, 2\n", 1, "flow sequence"),
        ("%YAML 1.2\n---\na: 1\n", 1, "document start"),
        ("a: " + "[" * 300 + "]" * 300, 1, "nested deeper"),
    ],
)
def test_d02_what_cannot_be_meant_is_refused_with_its_line(text, line, words):
    """Each problem is told with its line, whether kubectl fails or loses data over it."""
    found = [item for item in read(text) if isinstance(item, Unreadable)][0]  # noqa: RUF015
    assert words in found.reason
    assert found.line == line


def test_d02_what_follows_the_end_marker_is_not_lost_in_silence():
    """Kubectl ignores what stands below `...`; here the first document counts and the rest is reported."""
    first, second = read(f"{ONE}...\n{ONE}")
    assert isinstance(first, Document)
    assert (second.line, "content after" in second.reason) == (4, True)


def test_d02_text_that_is_no_utf8_is_refused_with_its_line():
    """The line of the first bad byte."""
    assert problem(ONE.encode() + b"data: {a: \xff}\n").line == 4


def test_d02_an_alias_bomb_is_refused_at_once():
    """A few hundred bytes that would become gigabytes."""
    levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert "aliases expand" in problem("l0: &l0 [lol]\n" + "\n".join(levels)).reason


def test_d02_an_alias_bomb_of_text_is_refused():
    """A long text named often is a bomb as well."""
    assert "aliases expand" in problem(f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 100)}]\n").reason


@pytest.mark.parametrize("bomb", ["[" * 100_000, "{a: " * 100_000, "- " * 100_000, "? " * 100_000])
def test_d02_no_depth_of_nesting_ends_the_process(bomb):
    """Nesting without end is an error, not a crash."""
    assert problem(bomb).reason


def test_d02_documents_and_files_have_a_largest_size():
    """3 MB for a document, 50 MB for a file; other documents of the file are read."""
    large = f"{ONE}data: {{a: {'x' * yaml_documents.MAX_DOCUMENT_BYTES}}}\n"
    first, second = read(f"{large}---\n{ONE}")
    assert "larger than 3 MB" in first.reason
    assert isinstance(second, Document)
    assert "larger than 50 MB" in problem(b"#" * (yaml_documents.MAX_FILE_BYTES + 1)).reason


def test_d02_a_last_line_without_its_end_has_one_in_a_block_scalar():
    """An editor that writes no last line end makes no other value: kubectl reads lines."""
    assert value("a: |\n  x") == value("a: |\n  x\n") == {"a": "x\n"}


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("{}", 4_000),
        ('{"apiVersion": "v1", "metadata": {"name": "a"}}\n', 2_000),
        ('{"kind": "List", "items": [{}]}\n', 500),
        ("---\na: 1\n", 1_000),
        ("--- [\n", 1_000),
        ("&", 6_000),
    ],
)
def test_h07_documents_are_read_in_linear_time(text, count):
    """Eight times the input costs about eight times the CPU."""

    def reading(times: int) -> Callable[[], object]:
        data = (f"a: '{text * times}'" if text == "&" else text * times).encode()
        return lambda: list(yaml_documents.read(data))

    assert_linear(reading, count)


def test_d04_one_broken_document_leaves_the_others():
    """A file is cut before it is parsed, so that a syntax error ends with its document."""
    items = read(f"{ONE}---\na: [\n---\n{ONE}")
    assert [type(item) for item in items] == [Document, Unreadable, Document]
    assert not items[1].looks_like_manifest


def test_no_message_has_a_value_in_it():
    """What cannot be read may be a Secret."""
    texts = ["a: !!int hunter2", "a: 'hunter2", "a: hunter2: b", "a: [hunter2", 'a: "\\qhunter2"', "a: hunter2\n\tb"]
    for text in texts:
        assert "hunter2" not in problem(text).reason


_keys = st.text(min_size=1, max_size=8)
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text() | st.floats(-1e300, 1e300),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_keys, inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=examples(50), deadline=None)
@given(st.dictionaries(_keys, _json, min_size=1, max_size=4))
def test_json_is_read_back_as_it_was_written(mapping):
    """What any program writes as JSON comes back the same."""
    assert value(json.dumps(mapping, indent=1)) == mapping
