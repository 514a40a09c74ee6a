"""Settings for drift: modes, added fields, ignore rules and windows."""

import zoneinfo
from collections.abc import Iterable
from datetime import UTC, datetime

from cronsim import CronSim, CronSimError
from pydantic import Field, field_validator, model_validator

from driftwatch.config.values import Duration, Section
from driftwatch.drift.rules import NEVER_IGNORED, FieldOwner, Rule, Target, parse_path, parse_pointer, single_fields
from driftwatch.model import Mode


class RuleConfig(Section):
    """Fields that are not fought over, for the objects that the rule selects."""

    rule: str = Field(
        "",
        examples=["hand-scaled"],
        description="Name of the rule, for `driftwatch rules`; no other of the list has it, and no built-in rule that "
        "holds. Empty: it is numbered.",
    )
    reason: str = Field("", description="Why the rule is there, for whoever reads `driftwatch rules`.")
    group: str = Field("*", description="API groups of the objects, as a glob; the core group is the empty text.")
    kind: str = Field("*", description="Kinds of the objects, as a glob.")
    namespace: str = Field("*", description="Namespaces of the objects, as a glob.")
    name: str = Field("*", description="Names of the objects, as a glob.")
    labels: dict[str, str] = Field({}, description="Labels that Git must give the objects; values are globs.")
    pointers: list[str] = Field([], examples=[["/spec/replicas"]], description="Fields by JSON pointer (RFC 6901).")
    paths: list[str] = Field(
        [],
        description='Fields by JSONPath (RFC 9535), such as $.spec.template.spec.containers[*].env[?@.name=="LEVEL"].',
    )
    managers: list[str] = Field(
        [],
        description="Fields by who owns them: field managers as globs, with /SUBRESOURCE if that matters. Together "
        "with pointers or paths: those fields, while one of these managers owns them.",
    )
    mode: Mode | None = Field(None, description="Mode of the objects, instead of their source's.")
    recreate: bool = Field(
        default=False, description="With mode ignore: create the objects anew when they are deleted."
    )
    sensitive: bool = Field(default=False, description="Instead of ignoring the fields: never show their values.")

    @field_validator("pointers")
    @classmethod
    def _are_pointers(cls, value: list[str]) -> list[str]:
        for pointer in value:
            _check_fields(pointer, [parse_pointer(pointer)])
        return value

    @field_validator("paths")
    @classmethod
    def _are_paths(cls, value: list[str]) -> list[str]:
        for path in value:
            _check_fields(path, single_fields(parse_path(path)))
        return value

    @field_validator("managers")
    @classmethod
    def _are_managers(cls, value: list[str]) -> list[str]:
        for manager in value:
            if not manager.partition("/")[0].strip():
                raise ValueError(f"{manager!r} names no manager; it looks like kubectl-edit, or keda*/scale")
        return value

    @model_validator(mode="after")
    def _says_something(self) -> "RuleConfig":
        if not (self.pointers or self.paths or self.managers or self.mode):
            raise ValueError("the rule says nothing: it needs pointers, paths, managers or a mode")
        if self.sensitive and not (self.pointers or self.paths):
            raise ValueError("a sensitive rule needs pointers or paths")
        if self.recreate and self.mode is not Mode.IGNORE:
            raise ValueError("recreate goes with mode: ignore")
        return self

    def compiled(self, default_name: str) -> Rule:
        """Convert to the drift engine's rule."""
        owners = []
        for manager in self.managers:
            name, _, subresource = manager.partition("/")
            owners.append(FieldOwner(name, subresource or "*"))
        return Rule(
            name=self.rule or default_name,
            target=Target(self.group, self.kind, self.namespace, self.name, tuple(sorted(self.labels.items()))),
            reason=self.reason,
            pointers=tuple(map(parse_pointer, self.pointers)),
            paths=tuple(map(parse_path, self.paths)),
            owners=tuple(owners),
            mode=self.mode,
            recreate=self.recreate,
            sensitive=self.sensitive,
        )


def _check_fields(written: str, fields: Iterable[tuple[str, ...]]) -> None:
    """Raise `ValueError` for fields that a rule cannot apply to, so that no rule is silently ineffective."""
    for field in fields:
        if not field:
            raise ValueError(
                f"{written!r} is the whole object, and a rule is about fields of it; there is mode: ignore"
            )
        if field in NEVER_IGNORED:
            raise ValueError(f"{written!r} is left to nobody: it says which object it is, or that it is ours")


class WindowConfig(Section):
    """A time in which drift of the source is healed; outside of all its windows it is only reported."""

    schedule: str = Field(
        examples=["0 8 * * 1-5"], description="When the window opens, as a cron expression of five fields."
    )
    duration: Duration = Field(examples=["10h"], description="How long it stays open.")
    timezone: str = Field("UTC", description="Time zone of the schedule, as the IANA database names it.")

    @field_validator("schedule")
    @classmethod
    def _is_cron(cls, value: str) -> str:
        try:
            CronSim(value, datetime(2026, 1, 1, tzinfo=UTC))
        except CronSimError as error:
            raise ValueError(f"{value!r} is no cron expression: {error}") from error
        return value

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, value: str) -> str:
        try:
            zoneinfo.ZoneInfo(value)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"{value!r} is no time zone") from error
        return value
