"""Reads the configuration file. Every error has the file and the line.

Typing errors are found at start, not during an outage.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from driftwatch.config.schema import Config
from driftwatch.config.values import FOLDER, dotted

MOST_SHOWN = 60  # characters of an unreadable value in an error
MOST_VALUES = 200_000  # values in a file, with aliases expanded: a few lines can expand to millions

_FORBIDDEN = re.compile("[\0\ud800-\udfff]")  # not allowed in paths, arguments and JSON


class ConfigError(Exception):
    """The configuration is invalid. The message has one line per error, with file and line."""


class _Mistake(yaml.constructor.ConstructorError):
    """A valid YAML value that cannot be used. `problem` is the reason, `problem_mark` the position."""


class _Loader(yaml.SafeLoader):
    """PyYAML's loader, which raises every error with a value as a `_Mistake` with the value's line."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Construct the value of a node. Raises `_Mistake`."""
        try:
            value = super().construct_object(node, deep)
        except (yaml.MarkedYAMLError, RecursionError):
            raise
        except Exception as error:  # a value that does not fit its tag raises exceptions of any type
            kind = node.tag.rpartition(":")[2]
            what = f"{_shortened(node.value)} cannot be read as {kind}" if isinstance(node, yaml.ScalarNode) else kind
            raise _Mistake(None, None, f"{what}: write it in quotes if it is text", node.start_mark) from error
        if isinstance(value, str) and (found := _FORBIDDEN.search(value)):
            words = f"the character U+{ord(found[0]):04X} cannot be used in a value"
            raise _Mistake(None, None, words, node.start_mark)
        return value


def _shortened(text: str) -> str:
    return repr(text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…")


def load(path: Path) -> Config:
    """Read and check the configuration file. Raises `ConfigError` with every error, each with file and line.

    Relative paths in the file are relative to the file's folder, not to the working directory.
    """
    return load_with_lines(path)[0]


def load_with_lines(path: Path) -> tuple[Config, dict[str, int]]:
    """Return the result of `load`, and the first line of each source by name. Raises `ConfigError`."""
    root, data = _parse(path)
    try:
        config = Config.model_validate(data, context={FOLDER: path.absolute().parent})
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(path, root, mistake) for mistake in error.errors())) from error
    except Exception as error:  # a value that breaks a validator: the reload must get a `ConfigError` too
        raise ConfigError(f"{path}:1: it cannot be checked: {type(error).__name__}: {error}") from error
    lines = {source.name: _line_of(root, ("sources", position)) for position, source in enumerate(config.sources)}
    return config, lines


def _parse(path: Path) -> tuple[yaml.Node, dict[Any, Any]]:
    """Parse the file into YAML nodes, which have line numbers, and values."""
    text = _read(path)
    loader = None
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if not isinstance(root, yaml.MappingNode):
            what = "is empty" if root is None else "is no mapping"
            raise ConfigError(f"{path}:1: the file {what}: it must be a mapping with the key `sources`")
        _weigh(root, set(), {})
        twice = [f"{path}:{line}: the key `{name}` stands here twice" for name, line in _repeated_keys(root, set())]
        if twice:
            raise ConfigError("\n".join(twice))
        return root, loader.construct_document(root)
    except _Mistake as error:
        raise ConfigError(f"{path}:{_line(error.problem_mark)}: {error.problem}") from error
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"{path}:{_line(error.problem_mark)}: not YAML: {error.problem}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}:{_line(loader.get_mark() if loader else None)}: it is nested too deeply") from error
    except ConfigError:
        raise
    except Exception as error:  # PyYAML's scanner does too, e.g. for the number of a %YAML directive
        raise ConfigError(f"{path}:{_line(loader.get_mark() if loader else None)}: not YAML: {error}") from error
    finally:
        if loader is not None:
            loader.dispose()


def _line(mark: yaml.Mark | None) -> int:
    return mark.line + 1 if mark else 1


def _weigh(node: yaml.Node, above: set[int], known: dict[int, int]) -> int:
    """Return the number of values of the node, with aliases expanded.

    Raises `_Mistake` if there are more than `MOST_VALUES`, or if a node contains itself.
    """
    if id(node) in above:
        raise _Mistake(None, None, "a value stands within itself by an alias", node.start_mark)
    if id(node) in known or isinstance(node, yaml.ScalarNode):
        return known.get(id(node), 1)
    parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
    above.add(id(node))
    known[id(node)] = weight = 1 + sum(_weigh(part, above, known) for part in parts)
    above.discard(id(node))
    if weight > MOST_VALUES:
        words = f"aliases make more than {MOST_VALUES} values of this; write it without them"
        raise _Mistake(None, None, words, node.start_mark)
    return weight


def _read(path: Path) -> str:
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: is not UTF-8 text: {error.reason}") from error
    forbidden = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if forbidden:
        line = text.count("\n", 0, forbidden.start()) + 1
        raise ConfigError(f"{path}:{line}: not YAML: the character U+{ord(forbidden[0]):04X} is not allowed")
    return text


def _repeated_keys(node: yaml.Node, visited: set[int]) -> Iterator[tuple[str, int]]:
    """Yield duplicate keys of mappings with the line of the second. PyYAML would silently use the last."""
    if id(node) in visited:  # an alias
        return
    visited.add(id(node))
    match node:
        case yaml.MappingNode():
            names: set[str] = set()
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if key.value in names:
                        yield key.value, key.start_mark.line + 1
                    names.add(key.value)
                yield from _repeated_keys(value, visited)
        case yaml.SequenceNode():
            for item in node.value:
                yield from _repeated_keys(item, visited)


def _explain(path: Path, root: yaml.Node, mistake: Any) -> str:
    location = tuple(mistake["loc"])
    place = dotted(location)
    match mistake["type"]:
        case "extra_forbidden":
            text = f"unknown key `{place}`"
        case "missing":
            text = f"missing key `{place}`"
        case "value_error":
            error = mistake["ctx"]["error"]
            location = getattr(error, "location", location)
            text = f"{place + ': ' if place else ''}{error}"
        case "string_type" if not isinstance(mistake["input"], dict | list | None):
            text = f"{place}: is {mistake['input']!r} to YAML, and should be text: write it in quotes"
        case _:
            text = f"{place}: {mistake['msg'][0].lower()}{mistake['msg'][1:]}"
    return f"{path}:{_line_of(root, location)}: {text}"


def _line_of(root: yaml.Node, location: tuple[int | str, ...]) -> int:
    """Return the line of the deepest part of `location` that exists in the file."""
    node = root
    line = root.start_mark.line + 1
    for part in location:
        match node:
            case yaml.MappingNode():
                pair = next((pair for pair in node.value if pair[0].value == str(part)), None)
                if pair is None:
                    break
                line, node = pair[0].start_mark.line + 1, pair[1]
            case yaml.SequenceNode() if isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                line = node.start_mark.line + 1
            case _:
                break
    return line
