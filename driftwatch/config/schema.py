"""Schema of the configuration file: every setting with its default and description.

Unknown keys are errors. `reference` generates the example file, the reference and the JSON schema from this module.
"""

from pydantic import Field, field_validator, model_validator

from driftwatch.config.observe import Events, Journal, Notification
from driftwatch.config.policy import RuleConfig
from driftwatch.config.prune import InventorySettings
from driftwatch.config.server import Server
from driftwatch.config.source import DNS_LABEL, Source
from driftwatch.config.values import Duration, FilePath, Section, Sections, dotted
from driftwatch.drift.annotations import Additions
from driftwatch.drift.builtin_rules import BUILT_IN_RULES
from driftwatch.drift.managers import Managers
from driftwatch.drift.orphan import PrunePolicy
from driftwatch.drift.policy import Policies, SourcePolicy
from driftwatch.drift.rules import Rule
from driftwatch.drift.snooze import Window


class _NameTaken(ValueError):
    """Two entries of a list have the same name. `location` is the position of the second."""

    def __init__(self, location: tuple[int | str, ...], words: str) -> None:
        super().__init__(f"{dotted(location)}: {words}")
        self.location = location


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
    namespace: str | None = Field(
        None,
        pattern=DNS_LABEL,
        examples=["shop"],
        description="The one namespace that driftwatch is confined to: it watches nothing beyond, and needs no more "
        "than a Role there. What Git declares in another namespace is refused. Absent: the whole cluster.",
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
    inventory: InventorySettings = Field(
        default_factory=InventorySettings,
        description="Where the kinds of every source are remembered in the cluster, for orphans and pruning.",
    )
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
    events: Events = Field(default_factory=Events, description="Kubernetes Events about drift.")
    journal: Journal = Field(default_factory=Journal, description="A JSON line for each drift.")
    notifications: Sections[Notification] = Field(
        [], description="Who is told of drift by HTTP: webhooks, Slack, Microsoft Teams, Alertmanager."
    )

    def policies(self) -> Policies:
        """Return the policies of all objects."""
        sources = {
            source.name: SourcePolicy(
                source.mode,
                source.additions or self.drift.additions,
                tuple(source.rules()),
                source.recreate,
            )
            for source in self.sources
        }
        return Policies(sources, self.rules())

    def pruning(self) -> dict[str, PrunePolicy]:
        """Return the prune policy of each source."""
        return {source.name: source.pruning() for source in self.sources}

    def managers(self) -> Managers:
        """Return the field managers that count as people."""
        return Managers(self.drift.interactiveManagers, self.drift.trustedManagers, self.rules())

    def windows(self) -> dict[str, tuple[Window, ...]]:
        """Return the healing windows of each source that has any."""
        return {
            source.name: tuple(Window(each.schedule, each.duration, each.timezone) for each in source.windows)
            for source in self.sources
            if source.windows
        }

    def rules(self) -> list[Rule]:
        """Return the rules for all sources: the file's rules, then the built-in ones."""
        return self._own_rules() + [rule for rule in BUILT_IN_RULES if rule.name not in self.drift.disabledRules]

    def _own_rules(self) -> list[Rule]:
        return [rule.compiled(f"rule-{n}") for n, rule in enumerate(self.ignore, start=1)]

    @model_validator(mode="after")
    def _names_are_unique(self) -> "Config":
        lists = {
            "sources": [source.name for source in self.sources],
            "notifications": [receiver.name for receiver in self.notifications],
        }
        for section, names in lists.items():
            for position, name in enumerate(names):
                if name in names[:position]:
                    raise _NameTaken((section, position, "name"), f"two {section} are named {name!r}")
        return self

    @model_validator(mode="after")
    def _rules_have_their_own_names(self) -> "Config":
        built_in = {rule.name for rule in BUILT_IN_RULES} - set(self.drift.disabledRules)
        lists: list[tuple[tuple[int | str, ...], list[Rule]]] = [(("ignore",), self._own_rules())]
        lists += [(("sources", n, "ignore"), source.rules()) for n, source in enumerate(self.sources)]
        for section, rules in lists:
            names = [rule.name for rule in rules]
            for position, name in enumerate(names):
                location = (*section, position, "rule")
                if name in names[:position]:
                    raise _NameTaken(location, f"two rules of this list are named {name!r}")
                if name in built_in:
                    words = f"{name!r} is a built-in rule, which holds beside this one; drift.disabledRules ends it"
                    raise _NameTaken(location, words)
        return self
