"""Settings for a source of the desired state: repository, revision, path, and the policy for its objects."""

from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator, model_validator

from driftwatch.config.git import (
    Auth,
    Proxy,
    SemverRange,
    Verify,
    Webhook,
    check_access,
    checked_repository,
    git_access,
)
from driftwatch.config.policy import RuleConfig, WindowConfig
from driftwatch.config.prune import Prune, PruneConfirm, PruneDelay, PruneKinds, PruneLimit, PruneLimitPercent
from driftwatch.config.rendering import (
    Helm,
    Kustomize,
    RenderKind,
    Sops,
    ToolLimitsSection,
    Variables,
    VariablesSource,
)
from driftwatch.config.values import Duration, FilePath, Section, Sections
from driftwatch.drift.annotations import Additions, Recreate
from driftwatch.drift.orphan import PrunePolicy
from driftwatch.drift.rules import Rule
from driftwatch.model import Mode
from driftwatch.source_spec import RenderSpec, SourceSpec

DNS_LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"


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
    semver: SemverRange | None = Field(
        None,
        examples=[">=1.2 <2"],
        description="Range of versions, instead of a revision: the tag with the highest version in it. Pre-releases "
        "count where the range names one.",
    )
    path: str = Field("", description="Folder in the repository below which manifests are read. Empty: all of it.")
    interval: Duration = Field(30.0, description="How often the remote is asked for a new commit.")
    timeout: Duration = Field(60.0, description="Longest time that one network operation of Git may take.")
    auth: Auth = Field(default_factory=Auth, description="Who we are to the repository's host.")
    caFile: FilePath | None = Field(  # noqa: N815  keys of the file are camelCase, as Kubernetes' are
        None,
        examples=["/etc/driftwatch/apps/ca.crt"],
        description="File with the certificates of the authorities that are taken for an https repository, instead "
        "of the system's.",
    )
    proxy: Proxy = Field(default_factory=Proxy, description="The proxy between us and the repository's host.")
    verify: Verify = Field(default_factory=Verify, description="Whose signatures a commit needs.")
    webhook: Webhook = Field(
        default_factory=Webhook,
        description="A push is applied at once where its host sends it to POST /hooks/NAME, with the source's name.",
    )
    namespace: str = Field(
        "default",
        pattern=DNS_LABEL,
        description="Namespace for manifests of namespaced kinds that name none.",
    )
    render: RenderKind = Field(
        "auto",
        description="How manifests are made of the files: plain, kustomize or helm. auto: kustomize where there is a "
        "kustomization.yaml at the path, helm where there is a Chart.yaml or `helm.chart` is set, else plain.",
    )
    kustomize: Kustomize = Field(default_factory=Kustomize, description="How kustomize builds.")
    helm: Helm = Field(
        default_factory=Helm, description="Which chart is rendered, as which release, with which values."
    )
    vars: Variables = Field(
        {},
        examples=[{"REGION": "eu-1"}],
        description="Variables: `${NAME}` in manifests is replaced. Without vars and varsFrom nothing is.",
    )
    varsFrom: Sections[VariablesSource] = Field(  # noqa: N815  keys of the file are camelCase, as Kubernetes' are
        [],
        description="ConfigMaps and Secrets in the cluster whose keys are variables; followed as they change.",
    )
    sops: Sops = Field(
        default_factory=Sops,
        description="Keys that decrypt what SOPS has encrypted; their files are read for each decryption.",
    )
    network: bool = Field(
        default=False,
        description="Let the tools use the network: remote bases of kustomizations, dependencies of charts. The chart "
        "of `helm.repository` is fetched in any case.",
    )
    toolLimits: ToolLimitsSection = Field(  # noqa: N815
        default_factory=ToolLimitsSection, description="What a tool that renders the source may use."
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
    recreate: Recreate = Field(
        Recreate.NEVER,
        description="immutable: an object of which Git changes a field that cannot be changed is deleted and created "
        "anew. Not so a Namespace, CRD, PersistentVolume or PersistentVolumeClaim: it must say so itself, by the "
        "annotation driftwatch.io/recreate. never: it is reported.",
    )
    prune: Prune = False
    pruneKinds: PruneKinds = []  # noqa: N815, RUF012  keys of the file are camelCase, as Kubernetes' are
    pruneDelay: PruneDelay = 5.0  # noqa: N815
    pruneLimit: PruneLimit = 10  # noqa: N815
    pruneLimitPercent: PruneLimitPercent = 20.0  # noqa: N815
    pruneConfirm: PruneConfirm = ""  # noqa: N815

    @field_validator("repository")
    @classmethod
    def _local_path(cls, value: str, info: ValidationInfo) -> str:
        return checked_repository(value, info)

    @field_validator("path")
    @classmethod
    def _inside(cls, value: str) -> str:
        if value.startswith("/") or ".." in value.split("/"):
            raise ValueError("path is relative to the repository's root and stays inside it")
        return "/".join(part for part in value.split("/") if part not in ("", "."))

    @model_validator(mode="after")
    def _fits_together(self) -> "Source":
        if self.semver and "revision" in self.model_fields_set and self.revision != "HEAD":
            raise ValueError("revision and semver both say which commit is meant; take one of them away")
        check_access(self.repository, self.auth, self.proxy, self.caFile)
        return self

    def rules(self) -> list[Rule]:
        """Return the source's own rules."""
        return [rule.compiled(f"{self.name}-{n}") for n, rule in enumerate(self.ignore, start=1)]

    def pruning(self) -> PrunePolicy:
        """Return the prune policy of the source."""
        return PrunePolicy(
            enabled=self.prune,
            kinds=frozenset(self.pruneKinds),
            delay=self.pruneDelay,
            objects=self.pruneLimit,
            percent=self.pruneLimitPercent,
            confirm=self.pruneConfirm,
        )

    def spec(self, mirrors: Path) -> SourceSpec:
        """Convert to the desired-state process's form, with the Git mirror in the folder `mirrors`."""
        return SourceSpec(
            name=self.name,
            repository=self.repository,
            revision=self.revision,
            path=self.path,
            interval=self.interval,
            timeout=self.timeout,
            namespace=self.namespace,
            mirror=str(mirrors / self.name),
            semver=self.semver or "",
            access=git_access(self.auth, self.proxy, self.caFile),
            verification=self.verify.verification(),
            render=self.render_spec(),
        )

    def render_spec(self) -> RenderSpec:
        """Convert the render settings to the desired-state process's form."""
        return RenderSpec(
            kind="helm" if self.render == "auto" and self.helm.chart else self.render,
            kustomize=self.kustomize.spec(),
            helm=self.helm.spec(),
            variables=self.vars,
            variables_from=tuple(each.spec() for each in self.varsFrom),
            sops=self.sops.spec(),
            network=self.network,
            limits=self.toolLimits.spec(),
        )
