"""The configuration file: every setting, its default and the sentence about it.

Unknown keys are errors, and every error names the file and the line, so that a typing mistake is found at start and not
by an outage. `config_reference` makes the example file, the reference and the JSON schema from what stands here.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, Field, ValidationError, ValidationInfo, field_validator, model_validator

from driftwatch.config_policy import RuleConfig, WindowConfig
from driftwatch.config_values import Duration, Section, Sections
from driftwatch.drift.policy import BUILT_IN_RULES, Additions, Managers, Policies, Rule, SourcePolicy
from driftwatch.drift.windows import Window
from driftwatch.model import Mode, SourceSpec

DNS_LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
_FOLDER = "folder"  # in the validation context: what relative paths are relative to


class ConfigError(Exception):
    """The configuration cannot be used; the message has one line for each mistake, with file and line."""


class _NameTwice(ValueError):
    """Two sources have one name; `location` is that of the second."""

    def __init__(self, name: str, position: int) -> None:
        super().__init__(f"sources[{position}].name: two sources are named {name!r}")
        self.location = ("sources", position, "name")


def _resolved(value: str, info: ValidationInfo) -> str:
    """A path as `~` and the folder of the configuration file make it; as it is where that folder is not known."""
    folder: Path | None = (info.context or {}).get(_FOLDER)
    return str(folder / Path(value).expanduser()) if folder and value else value


FilePath = Annotated[str, AfterValidator(_resolved)]


def is_remote(repository: str) -> bool:
    """Whether Git takes this for a URL or for an address like `git@host:path`: there is a colon before any slash."""
    return ":" in repository.partition("/")[0]


class Cluster(Section):
    """Which cluster to keep, and with which credentials."""

    kubeconfig: FilePath | None = Field(
        None,
        examples=["/etc/driftwatch/kubeconfig"],
        description="Path of a kubeconfig file. Absent: in-cluster credentials, else $KUBECONFIG or ~/.kube/config.",
    )
    context: str | None = Field(
        None, examples=["production"], description="Context of the kubeconfig. Absent: its current-context."
    )


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
        examples=["apps"],
        description="Name of the source: a DNS label. It is the value of the label driftwatch.io/source.",
    )
    repository: str = Field(
        min_length=1,
        examples=["https://git.example.com/platform/apps.git"],
        description="Where the repository is: an https or ssh URL, a file URL, or a path.",
    )
    revision: str = Field(
        "HEAD", min_length=1, description="Branch, tag or commit. HEAD is the remote's default branch."
    )
    path: str = Field("", description="Folder in the repository below which manifests are read. Empty: all of it.")
    interval: Duration = Field(30.0, description="How often the remote is asked for a new commit.")
    timeout: Duration = Field(60.0, description="Longest time that one network operation of Git may take.")
    namespace: str = Field(
        "default",
        pattern=DNS_LABEL,
        description="Namespace for manifests of namespaced kinds that name none.",
    )
    mode: Mode = Field(
        Mode.HEAL,
        description="heal: put drift back. observe: report it, write nothing. paused, ignore: do neither, for a "
        "while or for good.",
    )
    additions: Additions | None = Field(
        None, description="What is done about fields that people added, instead of `drift.additions`."
    )
    ignore: Sections[RuleConfig] = Field([], description="Rules for the objects of this source, as in `ignore`.")
    windows: Sections[WindowConfig] = Field(
        [], description="When drift is healed; outside of these times it is only reported. Empty: always."
    )

    @field_validator("repository")
    @classmethod
    def _local_path(cls, value: str, info: ValidationInfo) -> str:
        return value if is_remote(value) else _resolved(value, info)

    @field_validator("path")
    @classmethod
    def _inside(cls, value: str) -> str:
        if value.startswith("/") or ".." in value.split("/"):
            raise ValueError("path is relative to the repository's root and stays inside it")
        return "/".join(part for part in value.split("/") if part not in ("", "."))

    def rules(self) -> list[Rule]:
        """The source's own rules."""
        return [rule.compiled(f"{self.name}-{n}") for n, rule in enumerate(self.ignore, start=1)]

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


class DriftSettings(Section):
    """What is done about drift, for all sources."""

    additions: Additions = Field(
        Additions.REVERT,
        description="What is done about fields that people added and Git does not declare: revert, report or ignore. "
        "What controllers add is kept.",
    )
    interactiveManagers: list[str] = Field(  # noqa: N815  keys of the file are camelCase, as Kubernetes' are
        [], description="Field managers that people write under, as globs, beside those that driftwatch knows."
    )
    trustedManagers: list[str] = Field(  # noqa: N815
        [], description="Field managers whose additions are kept although they look like a person's, as globs."
    )
    disabledRules: list[str] = Field(  # noqa: N815
        [], description="Built-in rules that do not hold, by name. `driftwatch rules` lists them."
    )
    maxSnooze: Duration = Field(  # noqa: N815
        86400.0,
        description="Longest time that the live annotation driftwatch.io/snooze-until keeps an object unhealed.",
    )
    audit: Duration = Field(
        600.0, description="How long one round of dry runs over all objects takes. It finds what no event has told of."
    )

    @field_validator("disabledRules")
    @classmethod
    def _are_known(cls, value: list[str]) -> list[str]:
        known = {rule.name for rule in BUILT_IN_RULES}
        for name in value:
            if name not in known:
                raise ValueError(f"{name!r} is no built-in rule; there are {', '.join(sorted(known))}")
        return value


class State(Section):
    """What is kept on disk: Git mirrors, and which commit's objects are in force."""

    directory: FilePath | None = Field(
        None,
        examples=["/var/lib/driftwatch"],
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

    drift: DriftSettings = Field(default_factory=DriftSettings, description="What is done about drift.")
    ignore: Sections[RuleConfig] = Field(
        [],
        description="Fields that are not fought over: Git's value when the object is created, the live value from then "
        "on. A rule that selects no objects is for all.",
    )

    def policies(self) -> Policies:
        """What the file allows for each object."""
        sources = {
            source.name: SourcePolicy(
                source.mode,
                source.additions or self.drift.additions,
                tuple(source.rules()),
            )
            for source in self.sources
        }
        return Policies(sources, self.rules())

    def managers(self) -> Managers:
        """Which field managers people write under."""
        return Managers(self.drift.interactiveManagers, self.drift.trustedManagers, self.rules())

    def windows(self) -> dict[str, tuple[Window, ...]]:
        """The healing windows of each source that has any."""
        return {
            source.name: tuple(Window(each.schedule, each.duration, each.timezone) for each in source.windows)
            for source in self.sources
            if source.windows
        }

    def rules(self) -> list[Rule]:
        """The rules for all sources, the file's before the built-in ones."""
        own = [rule.compiled(f"rule-{n}") for n, rule in enumerate(self.ignore, start=1)]
        return own + [rule for rule in BUILT_IN_RULES if rule.name not in self.drift.disabledRules]

    @model_validator(mode="after")
    def _names_are_unique(self) -> "Config":
        seen: set[str] = set()
        for position, source in enumerate(self.sources):
            if source.name in seen:
                raise _NameTwice(source.name, position)
            seen.add(source.name)
        return self


def load(path: Path) -> Config:
    """Read and check the configuration file. Raises `ConfigError` with every mistake, each with file and line.

    Relative paths in it are relative to the folder of the file, wherever the program was started.
    """
    root, data = _parse(path)
    try:
        return Config.model_validate(data, context={_FOLDER: path.absolute().parent})
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(path, root, mistake) for mistake in error.errors())) from error


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
    dotted = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    match mistake["type"]:
        case "extra_forbidden":
            text = f"unknown key `{dotted}`"
        case "missing":
            text = f"missing key `{dotted}`"
        case "value_error":
            error = mistake["ctx"]["error"]
            location = getattr(error, "location", location)
            text = f"{dotted + ': ' if dotted else ''}{error}"
        case "string_type" if not isinstance(mistake["input"], dict | list | None):
            text = f"{dotted}: is {mistake['input']!r} to YAML, and should be text: write it in quotes"
        case _:
            text = f"{dotted}: {mistake['msg'][0].lower()}{mistake['msg'][1:]}"
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
