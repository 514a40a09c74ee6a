"""`driftwatch rules`: lists the ignore rules with their reasons, and the managers that count as people."""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson

from driftwatch.cli import options

if TYPE_CHECKING:
    from driftwatch.config import Config
    from driftwatch.drift.rules import Rule, Target

ERROR = 2
BUILT_IN, FILE = "built-in", "configuration"
_MEMBER = re.compile(r"\['([A-Za-z_]\w*)'\]")  # `$['spec']` is `$.spec`


@click.command()
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="The configuration file. Absent: what is built in."
)
@options.text_or_json
@click.option(
    "--object",
    "wanted",
    metavar="KIND/[NAMESPACE/]NAME",
    help="Only rules that may be about this object; the kind with its group as Deployment.apps, or without.",
)
def command(config_file: Path | None, output: str, wanted: str | None) -> None:
    """List the rules in the order in which they hold, and the managers that are taken for people.

    Rules of a source come first, then those of the whole configuration, then the built-in ones. All rules that select
    an object and name fields hold; where several set a mode, the first does.
    """
    config = _load(config_file)
    entries = _entries(config)
    if wanted is not None:
        name = _parsed(wanted)
        entries = [entry for entry in entries if _selects(entry["objects"], *name)]
    interactive, trusted = _managers(config)
    if output == "json":
        document = {
            "rules": entries,
            "interactiveManagers": interactive,
            "trustedManagers": trusted,
            "people": _people(interactive),
        }
        click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))
        return
    for number, entry in enumerate(entries, start=1):
        click.echo(_text(number, entry))
    click.echo("managers taken for people:")
    for person in _people(interactive):
        click.echo(f"   {person['manager'] + ':':<24}{person['reason'] or person['from']}")
    click.echo(f"never taken for people: {', '.join(trusted)}")


def _load(file: Path | None) -> "Config | None":
    from driftwatch.config import ConfigError, load

    if file is None:
        return None
    try:
        return load(file)
    except ConfigError as error:
        click.echo(f"driftwatch: configuration:\n{error}", err=True)
        sys.exit(ERROR)


def _entries(config: "Config | None") -> list[dict[str, Any]]:
    """Return every rule in order of precedence, including disabled built-in rules."""
    from driftwatch.drift.builtin_rules import BUILT_IN_RULES

    entries = []
    disabled: list[str] = []
    if config is not None:
        disabled = config.drift.disabledRules
        for source in config.sources:
            entries += [_entry(rule, f"source {source.name}") for rule in source.rules()]
        entries += [_entry(rule, FILE) for rule in config.rules() if not rule.built_in]
    entries += [_entry(rule, BUILT_IN, active=rule.name not in disabled) for rule in BUILT_IN_RULES]
    return entries


def _entry(rule: "Rule", origin: str, *, active: bool = True) -> dict[str, Any]:
    pointers = ["/" + "/".join(step.replace("~", "~0").replace("/", "~1") for step in each) for each in rule.pointers]
    return {
        "name": rule.name,
        "from": origin,
        "active": active,
        "objects": _selected(rule.target),
        "pointers": pointers,
        "paths": [_MEMBER.sub(r".\1", str(path)) for path in rule.paths],
        "managers": [
            owner.manager if owner.subresource == "*" else f"{owner.manager}/{owner.subresource}"
            for owner in rule.owners
        ],
        "mode": str(rule.mode) if rule.mode else None,
        "recreate": rule.recreate,
        "sensitive": rule.sensitive,
        "kept": rule.kept,
        "reason": rule.reason,
    }


def _selected(target: "Target") -> dict[str, Any]:
    return {
        "group": target.group,
        "kind": target.kind,
        "namespace": target.namespace,
        "name": target.name,
        "labels": dict(target.labels),
    }


def _managers(config: "Config | None") -> tuple[list[str], list[str]]:
    from driftwatch.drift.managers import Managers

    managers = config.managers() if config else Managers()
    return list(managers.interactive), list(managers.trusted)


def _people(interactive: list[str]) -> list[dict[str, str]]:
    """Return the patterns of managers that count as people. Only built-in patterns have a reason."""
    from driftwatch.drift.managers import INTERACTIVE_MANAGERS

    return [
        {
            "manager": pattern,
            "from": BUILT_IN if pattern in INTERACTIVE_MANAGERS else FILE,
            "reason": INTERACTIVE_MANAGERS.get(pattern, ""),
        }
        for pattern in interactive
    ]


def _parsed(wanted: str) -> tuple[str | None, str, str, str]:
    """Parse `--object` into group (None for any), kind, namespace and name."""
    parts = wanted.split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise click.BadParameter(f"{wanted!r} is not KIND/NAMESPACE/NAME or KIND/NAME", param_hint="--object")
    kind, dot, group = parts[0].partition(".")
    return (group if dot else None), kind, (parts[1] if len(parts) == 3 else ""), parts[-1]  # noqa: PLR2004


def _selects(objects: dict[str, Any], group: str | None, kind: str, namespace: str, name: str) -> bool:
    """Whether a rule may apply to an object. Labels are not checked, because they are not known here."""
    from fnmatch import fnmatchcase

    return (
        (group is None or fnmatchcase(group, objects["group"]))
        and fnmatchcase(kind.lower(), objects["kind"].lower())
        and fnmatchcase(namespace, objects["namespace"])
        and fnmatchcase(name, objects["name"])
    )


def _text(number: int, entry: dict[str, Any]) -> str:
    switched_off = "" if entry["active"] else ", switched off"
    rows = [("objects", _objects(entry["objects"]))]
    if fields := ", ".join([*entry["pointers"], *entry["paths"]]):
        rows.append(("hidden" if entry["sensitive"] else "kept if added" if entry["kept"] else "fields", fields))
    if entry["managers"]:
        what = "kept if added by" if entry["kept"] else "while owned by" if fields else "fields of"
        rows.append((what, ", ".join(entry["managers"])))
    if entry["mode"]:
        rows.append(("mode", entry["mode"] + (", created anew when deleted" if entry["recreate"] else "")))
    if entry["reason"]:
        rows.append(("reason", entry["reason"]))
    lines = [f"{number}. {entry['name']} ({entry['from']}{switched_off})"]
    return "\n".join([*lines, *(f"   {title + ':':<18}{words}" for title, words in rows)]) + "\n"


def _objects(selected: dict[str, Any]) -> str:
    parts = [f"{key} {value or '(core)'}" for key, value in selected.items() if key != "labels" and value != "*"]
    parts += [f"label {name}={value}" for name, value in selected["labels"].items()]
    return ", ".join(parts) or "all"
