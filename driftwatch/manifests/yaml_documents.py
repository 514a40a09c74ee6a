"""Splits a file into documents as kubectl does, with the line at which each begins.

The reader survives anything that people commit: UTF-16, tabs, alias bombs, a 50 MB dump, one broken document among a
hundred. An unreadable document is reported and the others are still read, so the file is split at its `---` lines
before it is parsed. Where kubectl loses data silently (duplicate keys, unknown tags, text after `...`), this module
reports an error. No message contains a value, because the file may be a Secret.
"""

import itertools
import json
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import yaml

from driftwatch.manifests import yaml_scalars

MAX_FILE_BYTES = 50 * 1024 * 1024
MAX_DOCUMENT_BYTES = 3 * 1024 * 1024
"""Twice etcd's limit for one object, so no object that a cluster would accept is rejected."""

MAX_DEPTH = 200
_TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"
_NODE_BYTES = 64
_MAX_REPEATED_BYTES = 2 * MAX_DOCUMENT_BYTES
"""Limit on what aliases may repeat: about a hundred thousand values, far more than fit into an object."""

_SEPARATOR = re.compile(r"^---(?=[ \t\r\n]|\Z)", re.MULTILINE)
_STANDARD = "tag:yaml.org,2002:"
_MARK = re.compile(r"^\ufeff", re.MULTILINE)
_END_MARKER = re.compile(r"^\.\.\.(?=[ \t\r\n]|\Z)", re.MULTILINE)
_SPACE = re.compile(r"\s*")
_BARE_TAG_ENDING = re.compile(r"!(?:\s|<!>)")
"""The end of a bare tag. Searching for `_BARE_TAG` itself would scan the rest of the text again at each `&`."""

_BARE_TAG = re.compile(r"(?:&\S+\s+)?!(?:\s|<!>)")
_INT64_CHARACTERS = 20
_PLAIN, _QUOTED = "plain", "quoted"
_COLLECTION_TAGS = frozenset(_STANDARD + name for name in ("map", "seq", "set", "omap", "pairs"))
_MERGE_TAG = _STANDARD + "merge"


class DocumentError(Exception):
    """A document cannot be read. `line` counts from 1 within the parsed text."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line
        self.reason = reason


class Lines(NamedTuple):
    """Line of a document, and of each item if it is a `List`."""

    line: int
    items: tuple["Lines", ...] = ()

    def shifted(self, by: int) -> "Lines":
        """Return the same lines, shifted down by `by`."""
        return Lines(self.line + by, tuple(item.shifted(by) for item in self.items))


class Document(NamedTuple):
    """A document's value, of JSON's types only."""

    value: Any
    lines: Lines


class Unreadable(NamedTuple):
    """A document that cannot be read, and whether it resembles a manifest."""

    line: int
    reason: str
    looks_like_manifest: bool


def read(data: bytes) -> Iterator[Document | Unreadable]:
    """Yield every document of a YAML or JSON file, in order. Empty and comment-only documents are omitted."""
    if len(data) > MAX_FILE_BYTES:
        yield Unreadable(1, f"the file is larger than {MAX_FILE_BYTES >> 20} MB", looks_like_manifest=True)
        return
    try:
        text = _decode(data)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        yield Unreadable(line, f"not UTF-8 text: {error.reason}", looks_like_manifest=True)
        return
    if not text.endswith("\n"):
        text += "\n"  # kubectl ends every line, so a block scalar's last line is always complete
    starts = [0, *(match.start() for match in _SEPARATOR.finditer(text)), len(text)]
    before = 0
    for start, end in itertools.pairwise(starts):
        part = text[start:end]
        yield from _part(part, before)
        before += part.count("\n")


def _decode(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _without_marks(data.decode("utf-16"))
    return _without_marks(data.decode("utf-8"))


def _without_marks(text: str) -> str:
    """Remove byte order marks. Some tools that concatenate files leave one at each boundary."""
    return _MARK.sub("", text) if "\ufeff" in text else text


def _part(part: str, before: int) -> Iterator[Document | Unreadable]:
    """Read the documents between two separators; `before` lines precede them."""
    try:
        if len(part) > MAX_DOCUMENT_BYTES:
            raise DocumentError(1, f"the document is larger than {MAX_DOCUMENT_BYTES >> 20} MB")
        for document in _parse(part):
            yield Document(document.value, document.lines.shifted(before))
    except DocumentError as error:
        last = part.rstrip().count("\n") + 1  # the parser counts the end of the file as a line
        line = before + min(error.line, last)
        yield Unreadable(line, error.reason, looks_like_manifest="apiVersion" in part)


def _parse(part: str) -> Iterator[Document]:
    content = part.removeprefix("---").lstrip(" \t\r\n")
    if content.startswith("{"):
        try:
            return iter(_json_stream(part, len(part) - len(content)))
        except DocumentError:
            pass  # a YAML flow mapping begins like JSON, and kubectl accepts it as well
    return _yaml_stream(part)


# --- JSON ---


def _json_stream(text: str, position: int) -> list[Document]:
    """Read concatenated JSON values, such as several outputs of `kubectl get -o json`."""
    documents = []
    line = text.count("\n", 0, position) + 1
    while position < len(text):
        try:
            value, end = _json.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            line += text.count("\n", position, getattr(error, "pos", position))
            raise DocumentError(line, f"not JSON: {getattr(error, 'msg', error)}") from error
        lines = _json_lines(text[position:end]).shifted(line - 1) if _is_list(value) else Lines(line)
        documents.append(Document(value, lines))
        # Only the new part is scanned: a file may hold a hundred thousand values.
        following = cast("re.Match[str]", _SPACE.match(text, end)).end()
        line += text.count("\n", position, following)
        position = following
    return documents


def _json_lines(text: str) -> Lines:
    """Lines of a JSON list's items. The YAML parser finds them, since the JSON parser reports no positions."""
    try:
        node = _Composer(text).get_single_node()
    except (yaml.YAMLError, RecursionError):
        return Lines(1)
    return _lines(node) if node is not None else Lines(1)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"duplicate key {twice!r}")
    return mapping


def _json_float(text: str) -> float | int:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number is too large for 64 bits")
    return yaml_scalars.json_number(number)


def _json_int(text: str) -> float | int:
    if len(text) <= _INT64_CHARACTERS and yaml_scalars.INT64_MIN <= (number := int(text)) <= yaml_scalars.INT64_MAX:
        return number
    return _json_float(text)


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number")


_json = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_json_float, parse_int=_json_int, parse_constant=_no_constant
)


# --- YAML ---


class _Composer(yaml.CSafeLoader):
    """libyaml's parser without PyYAML's resolution: it only reports whether a scalar was plain or quoted."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:  # noqa: ARG002
        if kind is yaml.ScalarNode:
            return _PLAIN if implicit[0] else _QUOTED
        return ""

    def descend_resolver(self, current_node: Any, current_index: Any) -> None:
        """Do nothing: path resolvers are not used. This saves two calls for each node."""

    def ascend_resolver(self) -> None:
        """Do nothing, like `descend_resolver`."""


def _yaml_stream(part: str) -> Iterator[Document]:
    composer = _Composer(part)
    try:
        if composer.check_node():
            node = cast("yaml.Node", composer.get_node())
            if _BARE_TAG_ENDING.search(part):
                _apply_bare_tags(node, part, set())
            value = _Builder(has_aliases="*" in part).build(node)
            if value is not None:
                yield Document(value, _lines(node) if _is_list(value) else Lines(node.start_mark.line + 1))
        _refuse_rest(composer, part)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = " ".join(filter(None, [error.context, error.problem]))
        reason = _TOO_DEEP if "nesting depth" in reason else f"not YAML: {reason}"  # newer versions of libyaml
        raise DocumentError(mark.line + 1 if mark else 1, reason) from error
    except yaml.reader.ReaderError as error:
        line = part.encode()[: error.position].count(b"\n") + 1
        raise DocumentError(line, f"not YAML: {error.reason}") from error
    except RecursionError as error:
        raise DocumentError(1, _TOO_DEEP) from error
    finally:
        composer.dispose()


def _apply_bare_tags(node: yaml.Node, part: str, seen: set[int]) -> None:
    """Treat a plain scalar with the tag `!` as text, as kubectl does. libyaml drops the tag silently."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        if node.tag == _PLAIN and _BARE_TAG.match(part, node.start_mark.index):
            node.tag = _QUOTED
        return
    for child in node.value:
        for each in child if isinstance(child, tuple) else (child,):
            _apply_bare_tags(each, part, seen)


def _refuse_rest(composer: _Composer, part: str) -> None:
    end = _END_MARKER.search(part)
    try:
        if not composer.check_node():
            return
    except yaml.MarkedYAMLError:
        if end is None:
            raise
    line = part.count("\n", 0, end.start()) + 1 if end is not None else 1
    raise DocumentError(line, "content after `...`: kubectl would ignore it; begin documents with `---`")


def _is_list(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("items"), list)


def _lines(node: yaml.Node) -> Lines:
    items: tuple[Lines, ...] = ()
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == "items" and isinstance(value, yaml.SequenceNode):
                items = tuple(_lines(item) for item in value.value)
    return Lines(node.start_mark.line + 1, items)


class _Builder:
    """Builds JSON values from one document's nodes.

    Only a document with aliases is charged for counting what they repeat. Without aliases, the document's own size is
    the bound.
    """

    def __init__(self, *, has_aliases: bool) -> None:
        self._has_aliases = has_aliases
        self._seen: set[int] = set()
        self._open: set[int] = set()
        self._repeating = 0
        self._repeated_bytes = 0

    def build(self, node: yaml.Node, depth: int = 0) -> Any:
        if not self._has_aliases:
            return self._build(node, depth)
        is_repeated = id(node) in self._seen
        self._seen.add(id(node))
        self._repeating += is_repeated
        if self._repeating:
            self._count(node)
        value = self._build(node, depth)
        self._repeating -= is_repeated
        return value

    def _build(self, node: yaml.Node, depth: int) -> Any:
        if isinstance(node, yaml.ScalarNode):
            return _value(node) if node.tag != _PLAIN else _finite(node)
        if depth > MAX_DEPTH:
            raise DocumentError(node.start_mark.line + 1, _TOO_DEEP)
        if node.tag and node.tag not in _COLLECTION_TAGS:
            raise _unknown_tag(node)
        if id(node) in self._open:
            raise DocumentError(node.start_mark.line + 1, "an anchor's value contains itself")
        self._open.add(id(node))
        value: Any
        if isinstance(node, yaml.SequenceNode):
            value = [self.build(item, depth + 1) for item in node.value]
        else:
            value = self._mapping(node, depth + 1)
        self._open.discard(id(node))
        return value

    def _mapping(self, node: yaml.Node, depth: int) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        own: set[str] = set()
        for key_node, value_node in node.value:
            if key_node.tag in (_PLAIN, _MERGE_TAG) and key_node.value == "<<":
                # kubectl merges where `<<` stands: later keys win, and a merge overrides keys written above it.
                self._merge(mapping, value_node, depth)
                continue
            key = self._key(key_node)
            if key in own:
                raise DocumentError(key_node.start_mark.line + 1, f"duplicate key {key!r}")
            own.add(key)
            mapping[key] = self.build(value_node, depth)
        return mapping

    def _merge(self, mapping: dict[str, Any], node: yaml.Node, depth: int) -> None:
        sources = list(reversed(node.value)) if isinstance(node, yaml.SequenceNode) else [node]
        for source in sources:
            if not isinstance(source, yaml.MappingNode):
                raise DocumentError(node.start_mark.line + 1, "`<<` wants a mapping or a sequence of mappings")
            mapping.update(self.build(source, depth))

    def _key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise DocumentError(node.start_mark.line + 1, "a mapping key is itself a mapping or a sequence")
        if node.tag == _QUOTED:
            return cast("str", node.value)
        try:
            key = yaml_scalars.resolve_key(node.value) if node.tag == _PLAIN else _tagged_key(node)
        except yaml_scalars.NoKey as error:
            raise DocumentError(node.start_mark.line + 1, str(error)) from error
        if key is None:
            line = node.start_mark.line + 1
            raise DocumentError(line, "a mapping key is null; quote it if it is meant as text")
        return key

    def _count(self, node: yaml.Node) -> None:
        self._repeated_bytes += _NODE_BYTES + (len(node.value) if isinstance(node, yaml.ScalarNode) else 0)
        if self._repeated_bytes > _MAX_REPEATED_BYTES:
            raise DocumentError(node.start_mark.line + 1, "the document's aliases expand to too much")


def _tagged_key(node: yaml.Node) -> str | None:
    value = _value(node)
    if node.tag == _STANDARD + "int":
        value = yaml_scalars.resolve_exactly(node.value)
    return None if value is None else yaml_scalars.key_text(value)


def _finite(node: yaml.Node) -> Any:
    value = yaml_scalars.resolve(node.value)
    if isinstance(value, float) and not math.isfinite(value):
        raise DocumentError(node.start_mark.line + 1, "infinity and NaN have no form in JSON; quote it if it is text")
    return value


def _value(node: yaml.Node) -> Any:
    """Value of a scalar that is quoted or has an explicit tag."""
    tag = node.tag
    if tag in (_QUOTED, _STANDARD + "str"):
        return node.value
    if tag == _STANDARD + "binary":
        return _binary(node)
    if tag in (_STANDARD + "timestamp", _MERGE_TAG):
        return node.value
    kinds = _TAGGED.get(tag)
    if kinds is None:
        raise _unknown_tag(node)
    if type(yaml_scalars.resolve_exactly(node.value)) not in kinds:
        raise DocumentError(node.start_mark.line + 1, f"the value is no !!{tag.removeprefix(_STANDARD)}")
    return _finite(node)


_TAGGED: dict[str, tuple[type, ...]] = {
    _STANDARD + "int": (int,),
    _STANDARD + "float": (int, float),
    _STANDARD + "bool": (bool,),
    _STANDARD + "null": (type(None),),
}


_NO_LINES = str.maketrans("", "", "\r\n")


def _binary(node: yaml.Node) -> str:
    import base64  # noqa: PLC0415  rarely needed

    try:
        return base64.b64decode(node.value.translate(_NO_LINES), validate=True).decode("utf-8", "replace")
    except ValueError as error:
        raise DocumentError(node.start_mark.line + 1, "!!binary holds no valid base64") from error


def _unknown_tag(node: yaml.Node) -> DocumentError:
    tag = node.tag.replace(_STANDARD, "!!", 1)
    return DocumentError(node.start_mark.line + 1, f"unknown tag {tag}: kubectl would ignore it")
