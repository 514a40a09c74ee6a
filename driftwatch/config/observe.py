"""Settings for reporting drift: Events, the journal and notifications."""

import string
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from driftwatch.config.values import Duration, FilePath, Section, resolved
from driftwatch.secret import SecretRef

STANDARD_OUTPUT = "-"
TEMPLATE_FIELDS = frozenset(
    {
        "event",
        "severity",
        "source",
        "commit",
        "file",
        "line",
        "group",
        "kind",
        "namespace",
        "name",
        "object",
        "type",
        "manager",
        "fields",
        "seconds",
        "error",
        "until",
        "time",
        "story",
    }
)

VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Globs = list[str]
Event = Literal["drifted", "healed", "mended", "failed", "snoozed", "unreadable", "contested", "calm"]


def checked_template(template: str) -> str:
    """Return the template if it uses only known fields, without attributes or items. Raises `ValueError`."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"the template cannot be read: {error}") from error
    for _, name, form, conversion in parts:
        if name is None:
            continue
        if name not in TEMPLATE_FIELDS:
            raise ValueError(f"the template has no field {{{name}}}; there are {', '.join(sorted(TEMPLATE_FIELDS))}")
        if form or conversion:
            raise ValueError(f"the template's field {{{name}}} takes no format")
    return template


Template = Annotated[str, AfterValidator(checked_template)]


class Events(Section):
    """Whether Kubernetes Events are written."""

    enabled: bool = Field(
        default=True,
        description="Write an Event on the object for drift, healing and refusals, as kubectl describe shows it. In "
        "mode observe none is written.",
    )


class Journal(Section):
    """Where the journal is written, and how much of it is kept."""

    file: str | None = Field(
        None,
        examples=["/var/log/driftwatch/journal.jsonl"],
        description="File to which the lines are appended; - is standard output. Absent: there is no journal.",
    )
    maxSize: int = Field(  # noqa: N815  keys of the file are camelCase, as Kubernetes' are
        64, ge=1, description="Size in MiB from which the file is put aside and a new one is begun."
    )
    keep: int = Field(5, ge=0, description="How many files that were put aside are kept: FILE.1 is the newest.")

    @field_validator("file")
    @classmethod
    def _is_path(cls, value: str | None, info: ValidationInfo) -> str | None:
        return value if value is None or value == STANDARD_OUTPUT else resolved(value, info)


class Notification(Section):
    """Whom to tell of what by HTTP, and in which form."""

    name: str = Field(
        pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$",
        examples=["on-call"],
        description="Name of the receiver, for logs and metrics: a DNS label.",
    )
    type: Literal["webhook", "slack", "teams", "alertmanager"] = Field(
        examples=["slack"],
        description="Form of the messages: webhook (CloudEvents 1.0), slack (also Mattermost and others that take its "
        "messages), teams (Adaptive Card to a workflow's webhook) or alertmanager (its API, version 2).",
    )
    url: str | None = Field(
        None, description="Address of the receiver, where it is no secret. Of Alertmanager, its root."
    )
    urlFile: FilePath | None = Field(  # noqa: N815
        None, examples=["/etc/driftwatch/slack/url"], description="File with the address of the receiver."
    )
    urlEnv: VariableName | None = Field(None, description="Environment variable with the address.")  # noqa: N815
    tokenFile: FilePath | None = Field(None, description="File with a bearer token for the receiver.")  # noqa: N815
    tokenEnv: VariableName | None = Field(  # noqa: N815
        None, description="Environment variable with a bearer token for the receiver."
    )
    caFile: FilePath | None = Field(  # noqa: N815
        None, description="File with the certificate authorities of the receiver, instead of the system's."
    )
    events: list[Event] = Field(
        ["drifted", "healed", "mended", "failed", "snoozed", "unreadable", "contested", "calm"],
        min_length=1,
        description="What is told of: drifted (found, and not healed yet), healed, mended (gone without us), failed "
        "(the API server refuses the manifest), snoozed, unreadable (a snooze that names no time), contested (changed "
        "again and again) and calm.",
    )
    severity: Literal["info", "warning", "error"] = Field(
        "info",
        description="Least severity: drifted and unreadable are warnings, failed and contested are errors, all else is "
        "info.",
    )
    sources: Globs = Field([], description="Sources that are told of, as globs. Empty: all.")
    kinds: Globs = Field(
        [],
        description="Kinds that are told of, as globs, with their group (Certificate.cert-manager.io) where it is not "
        "one of Kubernetes' own. Empty: all.",
    )
    namespaces: Globs = Field([], description="Namespaces that are told of, as globs. Empty: all, and what has none.")
    driftTypes: Globs = Field(  # noqa: N815
        [], description="Types of drift that are told of (deleted, modified, added), as globs. Empty: all."
    )
    managers: Globs = Field(
        [],
        description="Who must have caused the drift: field managers as globs, unknown where nobody knows. Empty: all.",
    )
    template: Template | None = Field(
        None,
        description="What is said of each event, with fields in braces such as {object}, {type} and {manager}. "
        "Absent: {story}, a sentence.",
    )
    batchWindow: Duration = Field(  # noqa: N815
        2.0, description="How long the first event of a message waits for others that go with it."
    )
    batchMax: int | None = Field(  # noqa: N815
        None, ge=1, le=500, description="Most events in one message. Absent: 1 for webhook, 20 for all others."
    )
    timeout: Duration = Field(10.0, description="Longest time that one request may take.")
    retryFor: Duration = Field(  # noqa: N815
        600.0, description="How long a message is tried again when the receiver fails, before it is dropped."
    )

    @field_validator("url")
    @classmethod
    def _is_http(cls, value: str | None) -> str | None:
        if value is not None:
            parts = urlsplit(value)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError("url is no http or https address")  # it may hold a secret, so it is not shown
            if parts.username or parts.password:
                raise ValueError("url holds credentials; put it into a file and name that by urlFile")
        return value

    @model_validator(mode="after")
    def _one_place(self) -> "Notification":
        if sum(bool(place) for place in (self.url, self.urlFile, self.urlEnv)) != 1:
            raise ValueError("exactly one of url, urlFile and urlEnv says where the receiver is")
        if self.tokenFile and self.tokenEnv:
            raise ValueError("tokenFile and tokenEnv both name the token; take one of them away")
        return self

    @property
    def address(self) -> SecretRef:
        """Return the reference to the address, empty if `url` is set."""
        return SecretRef(self.urlFile or "", self.urlEnv or "")

    @property
    def token(self) -> SecretRef:
        """Return the reference to the bearer token, empty without one."""
        return SecretRef(self.tokenFile or "", self.tokenEnv or "")

    @property
    def batch(self) -> int:
        """Return the maximum number of events in one message."""
        return self.batchMax or (1 if self.type == "webhook" else 20)
