"""The configuration file: every setting, its default and the sentence about it.

Unknown keys are errors, and every error names the file and the line, so that a typing mistake is found at start and not
by an outage.
"""

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from driftwatch.model import Mode, SourceSpec

DNS_LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class ConfigError(Exception):
    """The configuration cannot be used; the message has one line for each mistake, with file and line."""


def parse_duration(value: object) -> float:
    """Seconds of a duration such as `30s`, `5m`, `1h30m`, `250ms`, or of a plain number of seconds."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, str) or not value:
        raise ValueError("a duration looks like 30s, 5m or 1h30m")
    total, number, rest = 0.0, "", value
    while rest:
        digits = len(rest) - len(rest.lstrip("0123456789."))
        number, rest = rest[:digits], rest[digits:]
        unit = next((u for u in ("ms", "s", "m", "h") if rest.startswith(u)), None)
        if unit is None or not number or number.count(".") > 1 or number == ".":
            raise ValueError(f"{value!r} is no duration; one looks like 30s, 5m or 1h30m")
        total += float(number) * _DURATION_UNITS[unit]
        rest = rest[len(unit) :]
    return total


class Section(BaseModel):
    """A mapping of the file: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Cluster(Section):
    """Which cluster to keep, and with which credentials."""

    kubeconfig: str | None = Field(
        None,
        description="Path of a kubeconfig file. Absent: in-cluster credentials, else $KUBECONFIG or ~/.kube/config.",
    )
    context: str | None = Field(None, description="Context of the kubeconfig. Absent: its current-context.")


class Server(Section):
    """The HTTP endpoints `/metrics`, `/healthz` and `/readyz`."""

    listen: str = Field("127.0.0.1:9464", description="Address and port to listen on. Port 0 takes any free port.")

    @field_validator("listen")
    @classmethod
    def _has_port(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65535:  # noqa: PLR2004
            raise ValueError(f"{value!r} is not HOST:PORT")
        return value

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


class Source(Section):
    """A Git repository, revision and path whose manifests the cluster shall match."""

    name: str = Field(
        pattern=DNS_LABEL,
        description="Name of the source: a DNS label. It is the value of the label driftwatch.io/source.",
    )
    repository: str = Field(
        min_length=1, description="Where the repository is: an https or ssh URL, a file URL, or a path."
    )
    revision: str = Field(
        "HEAD", min_length=1, description="Branch, tag or commit. HEAD is the remote's default branch."
    )
    path: str = Field("", description="Folder in the repository below which manifests are read. Empty: all of it.")
    interval: Annotated[float, Field(gt=0)] = Field(30.0, description="How often the remote is asked for a new commit.")
    timeout: Annotated[float, Field(gt=0)] = Field(
        60.0, description="Longest time that one network operation of Git may take."
    )
    namespace: str = Field(
        "default",
        pattern=DNS_LABEL,
        description="Namespace for manifests of namespaced kinds that name none.",
    )
    mode: Mode = Field(
        Mode.HEAL, description="heal: put drift back. observe: report it, write nothing. paused: do neither."
    )

    @field_validator("interval", "timeout", mode="before")
    @classmethod
    def _seconds(cls, value: object) -> float:
        return parse_duration(value)

    @field_validator("path")
    @classmethod
    def _inside(cls, value: str) -> str:
        if value.startswith("/") or ".." in value.split("/"):
            raise ValueError("path is relative to the repository's root and stays inside it")
        return "/".join(part for part in value.split("/") if part not in ("", "."))

    def spec(self, mirrors: Path) -> SourceSpec:
        """The source as the desired-state process wants it, with its mirror below the folder `mirrors`."""
        return SourceSpec(
            name=self.name,
            repository=self.repository,
            revision=self.revision,
            path=self.path,
            interval=self.interval,
            timeout=self.timeout,
            namespace=self.namespace,
            mirror=str(mirrors / self.name),
        )


class State(Section):
    """What is kept on disk: Git mirrors, and which commit's objects are in force."""

    directory: str | None = Field(
        None,
        description="Folder for the state. Absent: $XDG_STATE_HOME/driftwatch, else ~/.local/state/driftwatch.",
    )


class Config(Section):
    """The whole configuration file."""

    cluster: Cluster = Field(default_factory=Cluster, description="Which cluster to keep.")
    server: Server = Field(default_factory=Server, description="HTTP endpoints.")
    state: State = Field(default_factory=State, description="What is kept on disk.")
    sources: list[Source] = Field(
        min_length=1,
        description="Where the desired state comes from; the first to declare an object owns it.",
    )

    @model_validator(mode="after")
    def _names_are_unique(self) -> "Config":
        seen: set[str] = set()
        for source in self.sources:
            if source.name in seen:
                raise ValueError(f"two sources are named {source.name!r}")
            seen.add(source.name)
        return self


def load(path: Path) -> Config:
    """Read and check the configuration file. Raises `ConfigError` with every mistake, each with file and line."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text: {error.reason} at byte {error.start}") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}:{line}: not YAML: {error.problem}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}:1: the file must be a mapping with the key `sources`")
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(path, node, mistake) for mistake in error.errors())) from error


def _explain(path: Path, root: yaml.Node | None, mistake: Any) -> str:
    location = tuple(mistake["loc"])
    line = _line_of(root, location)
    dotted = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    match mistake["type"]:
        case "extra_forbidden":
            text = f"unknown key `{dotted}`"
        case "missing":
            text = f"missing key `{dotted}`"
        case "value_error":
            text = f"{dotted + ': ' if dotted else ''}{mistake['ctx']['error']}"
        case _:
            text = f"{dotted}: {mistake['msg'][0].lower()}{mistake['msg'][1:]}"
    return f"{path}:{line}: {text}"


def _line_of(node: yaml.Node | None, location: tuple[int | str, ...]) -> int:
    """Line of the deepest part of `location` that the file has."""
    line = node.start_mark.line + 1 if node else 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            pair = next((pair for pair in node.value if pair[0].value == part), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line
