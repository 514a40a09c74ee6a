"""Compares objects with Git for the demo. It shares no code with the daemon."""

from collections.abc import Iterator
from typing import Any


def differences(declared: Any, live: Any, path: str = "") -> Iterator[str]:
    """Declared fields whose live value is missing or different. Fields that only the server sets do not count."""
    if isinstance(declared, dict) and isinstance(live, dict):
        for name, value in declared.items():
            yield from differences(value, live.get(name), f"{path}.{name}".lstrip("."))
    elif isinstance(declared, list) and isinstance(live, list) and len(declared) == len(live):
        for position, (one, other) in enumerate(zip(declared, live, strict=True)):
            yield from differences(one, other, f"{path}[{position}]")
    elif declared != live:
        yield f"{path} is {'not there' if live is None else repr(live)} instead of {declared!r}"


def unlike(declared: dict[str, dict[str, Any]], live: dict[str, dict[str, Any]]) -> list[str]:
    """Descriptions of what the live objects lack of the declared ones, both by kind."""
    found = []
    for kind, manifest in declared.items():
        if kind not in live:
            found.append(f"{kind} {manifest['metadata']['name']} is not there")
        elif "deletionTimestamp" in live[kind]["metadata"]:
            found.append(f"{kind} {manifest['metadata']['name']} is being deleted")
        else:
            found += [f"{kind}: {difference}" for difference in differences(manifest, live[kind])]
    return found
