"""The example configuration, the reference and the JSON schema, all made from the schema in `config`.

What is written by hand beside a schema is wrong after the next change of it. Tests compare the committed files with
what is made here; `driftwatch config` prints them.
"""

import json
import textwrap
from typing import Any

import yaml

from driftwatch.config import Config

WIDTH = 110
Node = dict[str, Any]

_EXAMPLE_HEAD = """\
# Every setting of driftwatch. Where nothing else is said, the value shown is the default.
# Made from the schema by `driftwatch config example`. Editors: config/driftwatch.schema.json is its JSON schema.
"""

_REFERENCE_HEAD = """\
# Configuration

driftwatch reads one YAML file, named by `driftwatch run --config FILE`, once at its start.
[config/driftwatch.example.yaml](../config/driftwatch.example.yaml) shows every key, and
[config/driftwatch.schema.json](../config/driftwatch.schema.json) is the JSON schema for editors. All three are made
from the schema in `driftwatch/config.py` by `driftwatch config example`, `reference` and `schema`; do not edit them by
hand.

- An unknown key, a key that stands twice, and a value that does not fit are errors, each with file and line. The
  program then ends with exit status 2 and has touched nothing.
- A relative path is relative to the folder of the configuration file, wherever the program was started. `~` is the
  user's home. A repository is a path unless there is a colon before its first slash, which is Git's own rule.
- A *duration* is written as `250ms`, `30s`, `5m` or `1h30m`, or as a number of seconds.
- No secret belongs into the file: credentials for the cluster come from the kubeconfig, those for Git from Git's own
  means (an SSH agent, a credential helper).
"""


def json_schema() -> Node:
    """The JSON schema of the file, draft 2020-12."""
    schema = Config.model_json_schema()
    for section in (schema, *schema["$defs"].values()):
        for name, field in section.get("properties", {}).items():
            field.pop("title", None)
            if _is_duration(field):
                field["default"] = duration(field["default"])
            section["properties"][name] = field
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "driftwatch configuration"}


def schema_text() -> str:
    """The JSON schema as it is committed."""
    return json.dumps(json_schema(), indent=2) + "\n"


def example() -> str:
    """A configuration file with every key, its sentence as comment and its default as value."""
    schema = json_schema()
    lines = [_EXAMPLE_HEAD.rstrip("\n")]
    for name, field in schema["properties"].items():
        lines += ["", *_comment(field["description"], "")]
        section = _section(schema, field)
        lines.append(f"{name}:")
        if field.get("type") == "array":
            entries = _entries(section, "    ")
            first = next(number for number, line in enumerate(entries) if not line.lstrip().startswith("#"))
            entries[first] = f"  - {entries[first].lstrip()}"
            lines += entries
        else:
            lines += _entries(section, "  ")
    return "\n".join(lines) + "\n"


def reference() -> str:
    """Every section and key as Markdown."""
    schema = json_schema()
    parts = [_REFERENCE_HEAD]
    for name, field in schema["properties"].items():
        title = f"{name}[]" if field.get("type") == "array" else name
        parts.append(f"\n## `{title}`\n\n{field['description']}\n\n| key | type | default | |\n|---|---|---|---|\n")
        section = _section(schema, field)
        for key, each in section["properties"].items():
            default = "**required**" if key in section.get("required", ()) else _default(each)
            parts.append(f"| `{key}` | {_type(schema, each)} | {default} | {each['description']} |\n")
    return "".join(parts)


def duration(seconds: float) -> str:
    """A duration as one would write it: `30s`, `5m`, `1h30m`."""
    milliseconds = round(seconds * 1000)
    parts = []
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, milliseconds = divmod(milliseconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def _section(schema: Node, field: Node) -> Node:
    """The mapping that a key of the file holds, or that each item of its list is."""
    found: Node = schema["$defs"][field.get("items", field)["$ref"].rpartition("/")[2]]
    return found


def _entries(section: Node, indent: str) -> list[str]:
    lines: list[str] = []
    required = section.get("required", ())
    for key, field in section["properties"].items():
        lines += _comment(field["description"], indent)
        value = field["examples"][0] if key in required else field.get("default")
        shown = yaml.safe_dump({key: value}, default_flow_style=False, width=1000).strip()
        hint = f"  # for example {field['examples'][0]}" if value is None and "examples" in field else ""
        lines.append(f"{indent}{shown}{hint}")
    return lines


def _comment(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")


def _is_duration(field: Node) -> bool:
    return any("exclusiveMinimum" in choice for choice in field.get("anyOf", ()))


def _type(schema: Node, field: Node) -> str:
    if _is_duration(field):
        return "duration"
    if "$ref" in field:
        choices = schema["$defs"][field["$ref"].rpartition("/")[2]]["enum"]
        return ", ".join(f"`{choice}`" for choice in choices)
    types = [field] if "type" in field else field.get("anyOf", [])
    return " or ".join(
        "text" if choice["type"] == "string" else choice["type"] for choice in types if choice["type"] != "null"
    )


def _default(field: Node) -> str:
    value = field.get("default")
    return "none" if value is None else f"`{json.dumps(value) if value == '' else value}`"
