"""Reading the configuration file: every mistake is named with the file and the line.

A typing mistake is found at start and not by an outage.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from driftwatch.config.schema import Config
from driftwatch.config.values import FOLDER, dotted


class ConfigError(Exception):
    """The configuration cannot be used; the message has one line for each mistake, with file and line."""


def load(path: Path) -> Config:
    """Read and check the configuration file. Raises `ConfigError` with every mistake, each with file and line.

    Relative paths in it are relative to the folder of the file, wherever the program was started.
    """
    return load_with_lines(path)[0]


def load_with_lines(path: Path) -> tuple[Config, dict[str, int]]:
    """What `load` gives, and the line at which each source begins, by its name. Raises `ConfigError`."""
    root, data = _parse(path)
    try:
        config = Config.model_validate(data, context={FOLDER: path.absolute().parent})
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(path, root, mistake) for mistake in error.errors())) from error
    lines = {source.name: _line_of(root, ("sources", position)) for position, source in enumerate(config.sources)}
    return config, lines


def _parse(path: Path) -> tuple[yaml.Node, dict[Any, Any]]:
    """The file's nodes, which know their lines, and what they say."""
    text = _read(path)
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if not isinstance(root, yaml.MappingNode):
            what = "is empty" if root is None else "is no mapping"
            raise ConfigError(f"{path}:1: the file {what}: it must be a mapping with the key `sources`")
        twice = [f"{path}:{line}: the key `{name}` stands here twice" for name, line in _repeated_keys(root, set())]
        if twice:
            raise ConfigError("\n".join(twice))
        return root, loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}:{line}: not YAML: {error.problem}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}:1: it is nested too deeply") from error
    except ValueError as error:  # something that looks like a date and is none
        raise ConfigError(f"{path}: a value cannot be read: {error}; write it in quotes") from error
    finally:
        loader.dispose()


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
    """Keys that a mapping has twice, of which PyYAML would silently take the last, each with the later's line."""
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
    """Line of the deepest part of `location` that the file has."""
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
