"""Generates the example configuration, the reference and the JSON schema from the schema in `config`.

Hand-written documentation is outdated after the next change of the schema. Tests compare the committed files with the
generated ones. `driftwatch config` prints them.
"""

import json
import textwrap
from typing import Any

import yaml

from driftwatch.config.schema import Config

WIDTH = 110
Node = dict[str, Any]

_EXAMPLE_HEAD = """\
# Every setting of driftwatch. Where nothing else is said, the value shown is the default.
# A line that begins with # and no space is an optional entry: take the # away to use it.
# Made from the schema by `driftwatch config example`. Editors: config/driftwatch.schema.json is its JSON schema.
"""

_REFERENCE_HEAD = """\
# Configuration

driftwatch reads one YAML file, named by `driftwatch run --config FILE`, at its start, when the file changes and on
SIGHUP. One that cannot be used then leaves the one before in force; `cluster`, `server` and `state` count after a
restart only. [drift.md](drift.md) says what modes, added fields, ignore rules and windows do.
[config/driftwatch.example.yaml](../config/driftwatch.example.yaml) shows every key, and
[config/driftwatch.schema.json](../config/driftwatch.schema.json) is the JSON schema for editors. All three are made
from the schema in `driftwatch/config/` by `driftwatch config example`, `reference` and `schema`; do not edit them by
hand.

- An unknown key, a key that stands twice, and a value that does not fit are errors, each with file and line. At
  its start the program then ends with exit status 2 and has touched nothing.
- A relative path is relative to the folder of the configuration file, wherever the program was started. `~` is the
  user's home. A repository is a path unless there is a colon before its first slash, which is Git's own rule.
- A *duration* is written as `250ms`, `30s`, `5m` or `1h30m`, or as a number of seconds.
- No secret belongs into the file. Credentials for the cluster come from the kubeconfig, those for Git from files or
  environment variables that the file names, or from Git's own means (an SSH agent, a credential helper).
"""


def json_schema() -> Node:
    """Return the JSON schema of the file, draft 2020-12."""
    schema = Config.model_json_schema()
    for section in (schema, *schema["$defs"].values()):
        for field in section.get("properties", {}).values():
            field.pop("title", None)
            if _is_duration(field) and "default" in field:
                field["default"] = duration(field["default"])
            if _is_optional_list(field):
                field["type"] = ["array", "null"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "driftwatch configuration"}


def schema_text() -> str:
    """Return the JSON schema as text, as committed."""
    return json.dumps(json_schema(), indent=2) + "\n"


def example() -> str:
    """Return a configuration file with every key, its description as comment and its default as value."""
    schema = json_schema()
    lines = [_EXAMPLE_HEAD.rstrip("\n")]
    for name, field in schema["properties"].items():
        lines += ["", *_comment(field["description"], "")]
        if _is_optional_list(field):
            lines += _optional_entry(schema, name, field, "")
        elif field.get("type") == "array":
            lines += [f"{name}:", *_item(_entries(schema, _section(schema, field), "    "), "  ")]
        else:
            lines += [f"{name}:", *_entries(schema, _section(schema, field), "  ")]
    return "\n".join(lines) + "\n"


def reference() -> str:
    """Return every section and key as Markdown."""
    schema = json_schema()
    parts = [_REFERENCE_HEAD]
    titles = _titles(schema)
    for title, field in titles.items():
        parts.append(f"\n## `{title}`\n\n{field['description']}\n\n| key | type | default | |\n|---|---|---|---|\n")
        section = _section(schema, field)
        for key, each in section["properties"].items():
            default = "**required**" if key in section.get("required", ()) else _default(each)
            parts.append(f"| `{key}` | {_type(schema, titles, each)} | {default} | {each['description']} |\n")
    return "".join(parts)


def duration(seconds: float) -> str:
    """Format seconds as a duration: `30s`, `5m`, `1h30m`."""
    milliseconds = round(seconds * 1000)
    parts = []
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, milliseconds = divmod(milliseconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def _titles(schema: Node) -> dict[str, Node]:
    """Return the sections in the order of the file. A nested section follows its parent, unless it is top-level too."""
    top = {_ref(field): name for name, field in schema["properties"].items()}
    titles: dict[str, Node] = {}
    for name, field in schema["properties"].items():
        title = f"{name}[]" if "items" in field else name
        titles[title] = field
        for key, inner in _section(schema, field)["properties"].items():
            if _is_optional_list(inner) and _ref(inner) not in top:
                titles[f"{title}.{key}[]"] = inner
            elif _is_section(schema, inner):
                titles[f"{title}.{key}"] = inner
    return titles


def _ref(field: Node) -> str:
    """Return the name of the schema of a field or of its items, "" for plain values."""
    found = [choice["$ref"] for choice in (field.get("items", field), *field.get("anyOf", ())) if "$ref" in choice]
    return str(found[0]).rpartition("/")[2] if found else ""


def _section(schema: Node, field: Node) -> Node:
    """Return the section schema of a key's value, or of the items of its list."""
    found: Node = schema["$defs"][_ref(field)]
    return found


def _entries(schema: Node, section: Node, indent: str, *, exemplary: bool = False) -> list[str]:
    """Return every key of a section with its default, or with its example if it is required or `exemplary` is set."""
    lines: list[str] = []
    required = section.get("required", ())
    for key, field in section["properties"].items():
        lines += _comment(field["description"], indent)
        if _is_optional_list(field):
            lines += _optional_entry(schema, key, field, indent)
            continue
        if _is_section(schema, field):
            lines += [f"{indent}{key}:", *_entries(schema, _section(schema, field), f"{indent}  ")]
            continue
        shows_example = key in required or (exemplary and "examples" in field)
        value = field["examples"][0] if shows_example else field.get("default")
        shown = yaml.safe_dump({key: value}, default_flow_style=False, width=1000).strip()
        if isinstance(value, dict | list):
            shown = f"{key}: {yaml.safe_dump(value, default_flow_style=True, width=1000).strip()}"
        hint = f"  # for example {field['examples'][0]}" if value is None and "examples" in field else ""
        lines.append(f"{indent}{shown}{hint}")
    return lines


def _optional_entry(schema: Node, key: str, field: Node, indent: str) -> list[str]:
    """Return a list of sections with one entry, which is commented out."""
    entry = _item(_entries(schema, _section(schema, field), f"{indent}    ", exemplary=True), f"{indent}  ")
    return [f"{indent}{key}:", *(f"#{line}" for line in entry)]


def _item(entries: list[str], indent: str) -> list[str]:
    """Indent the entries of a section as an item of a list."""
    first = next(number for number, line in enumerate(entries) if not line.lstrip().startswith("#"))
    return [*entries[:first], f"{indent}- {entries[first].lstrip()}", *entries[first + 1 :]]


def _comment(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")


def _is_optional_list(field: Node) -> bool:
    return "$ref" in field.get("items", {}) and "default" in field


def _is_section(schema: Node, field: Node) -> bool:
    """Whether the key's value is a section."""
    name = _ref(field)
    return bool(name) and "items" not in field and "properties" in schema["$defs"][name]


def _is_duration(field: Node) -> bool:
    return any("exclusiveMinimum" in choice for choice in field.get("anyOf", ()))


def _type(schema: Node, titles: dict[str, Node], field: Node) -> str:
    if _is_duration(field):
        return "duration"
    if (name := _ref(field)) and ("items" in field or _is_section(schema, field)):
        title = next(title for title, each in titles.items() if _ref(each) == name)
        anchor = "".join(character for character in title if character.isalnum()).lower()
        return f"{'list of ' if 'items' in field else ''}[`{title}`](#{anchor})"
    if "items" in field:
        return "list of text"
    if "additionalProperties" in field:
        return "mapping of text"
    if name := _ref(field):
        return ", ".join(f"`{choice}`" for choice in schema["$defs"][name]["enum"])
    types = [field] if "type" in field else field.get("anyOf", [])
    words = {"string": "text", "boolean": "true or false"}
    names = [str(choice["type"]) for choice in types if choice["type"] != "null"]
    return " or ".join(words.get(name, name) for name in names)


def _default(field: Node) -> str:
    value = field.get("default")
    if value is None:
        return "none"
    return f"`{value}`" if isinstance(value, str) and value else f"`{json.dumps(value)}`"
