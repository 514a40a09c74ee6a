"""Settings for rendering a source: kustomize, Helm, variables, decryption and tool limits."""

import json
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from driftwatch.config.values import Duration, FilePath, Section
from driftwatch.source_spec import HelmSpec, KustomizeSpec, SopsSpec, ToolLimits, VariablesFrom

_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"
_NAME = r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"
_RELEASE = r"[a-z0-9]([-a-z0-9]{0,51}[a-z0-9])?"
_SIZES = {"Mi": 2**20, "Gi": 2**30}
_SIZE = r"^[1-9][0-9]{0,5}(Mi|Gi)$"

RenderKind = Literal["auto", "plain", "kustomize", "helm"]


def _bytes(size: str) -> int:
    """Parse a size such as `512Mi` into bytes."""
    return int(size[:-2]) * _SIZES[size[-2:]]


def _relative(value: str) -> str:
    if value.startswith(("/", "~")):
        raise ValueError(f"{value!r} is not relative to the source's path")
    return value


RepositoryPath = Annotated[str, AfterValidator(_relative)]


def _matches(value: str, pattern: str, complaint: str) -> str:
    if value and not re.fullmatch(pattern, value):
        raise ValueError(f"{value!r} {complaint}")
    return value


def _texts(value: Any) -> Any:
    """Reject values that YAML does not read as text: the original spelling of a number is lost."""
    for name, text in value.items() if isinstance(value, dict) else ():
        _matches(str(name), _VARIABLE, "is no name of a variable: letters, digits and _, no digit first")
        if not isinstance(text, str):
            raise ValueError(  # noqa: TRY004  pydantic wants it
                f"the value of {name} is {text!r} to YAML, and should be text: write it in quotes"
            )
    return value


Variables = Annotated[dict[str, str], BeforeValidator(_texts)]


class Kustomize(Section):
    """Settings of kustomize."""

    helm: bool = Field(
        default=False,
        description="Allow `helmCharts` in kustomizations. Their charts are in the repository, or `network` is on.",
    )

    def spec(self) -> KustomizeSpec:
        """As the desired-state process wants it."""
        return KustomizeSpec(helm=self.helm)


class Helm(Section):
    """Settings of Helm."""

    chart: str = Field(
        "",
        examples=["charts/shop"],
        description="Folder of the chart, relative to the source's path. With `repository`: the chart's name there.",
    )
    repository: str = Field(
        "",
        examples=["oci://registry.example.com/charts"],
        description="Chart repository: an https or http URL, or oci:// with a registry's address and path. Empty: the "
        "chart is in the Git repository.",
    )
    version: str = Field(
        "",
        examples=["6.5.4"],
        description="Version of the chart in its repository. What a range (^6, 6.x, >=6.1) means is asked again every "
        "`chartInterval`.",
    )
    chartInterval: Duration = Field(  # noqa: N815  keys of the file are camelCase, as Kubernetes' are
        600.0, description="How often the chart repository is asked what a range of versions means."
    )
    username: str = Field("", description="User of the chart repository.")
    passwordFile: FilePath | None = Field(  # noqa: N815
        None, examples=["/etc/driftwatch/charts/password"], description="File with that user's password or token."
    )
    caFile: FilePath | None = Field(  # noqa: N815
        None,
        examples=["/etc/driftwatch/charts/ca.crt"],
        description="File with the certificates of the authorities that are taken for the chart repository.",
    )
    plainHTTP: bool = Field(  # noqa: N815
        default=False, description="Talk to an oci:// registry without TLS."
    )
    releaseName: str = Field(  # noqa: N815
        "", examples=["shop"], description="Name of the release, for templates. Empty: the source's name."
    )
    namespace: str = Field(
        "", examples=["shop"], description="Namespace of the release, for templates. Empty: the source's namespace."
    )
    valuesFiles: list[RepositoryPath] = Field(  # noqa: N815
        [],
        examples=[["values-prod.yaml"]],
        description="Values files in the repository, relative to the source's path; later ones win.",
    )
    values: dict[str, Any] = Field({}, examples=[{"replicas": 3}], description="Values; they win over those of files.")
    includeCRDs: bool = Field(  # noqa: N815
        default=True, description="Declare the CRDs of the chart's folder crds/, too."
    )
    hooks: Literal["skip", "include"] = Field(
        "skip",
        description="skip: resources with a helm.sh/hook annotation are not declared. include: install and upgrade "
        "hooks are declared as ordinary objects; tests never are.",
    )
    dependencies: bool = Field(
        default=False,
        description="Fetch dependencies of a chart in the Git repository that its folder charts/ lacks, as Chart.lock "
        "says. Needs `network`.",
    )
    kubeVersion: str = Field(  # noqa: N815
        "", examples=["1.33.0"], description="Kubernetes version that templates see. Empty: the cluster's."
    )
    apiVersions: list[str] = Field(  # noqa: N815
        [],
        examples=[["monitoring.coreos.com/v1"]],
        description="API versions that templates see. Empty: what the cluster serves.",
    )

    @field_validator("releaseName")
    @classmethod
    def _is_release(cls, value: str) -> str:
        return _matches(value, _RELEASE, "is no name of a release: a DNS label of at most 53 characters")

    @field_validator("repository")
    @classmethod
    def _is_url(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://", "oci://")):
            raise ValueError("a chart repository begins with https://, http:// or oci://")
        if "@" in value.partition("://")[2].partition("/")[0]:
            raise ValueError("credentials belong into username and passwordFile, not into the URL")
        return value

    @field_validator("values")
    @classmethod
    def _has_form(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"values have no form in JSON: {error}; quote dates and the like") from error
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> "Helm":
        if self.repository and not (self.chart and self.version):
            raise ValueError("repository needs chart, the chart's name there, and version")
        if not self.repository:
            _relative(self.chart)
            if self.version or self.username or self.caFile or self.plainHTTP:
                raise ValueError("version, username, passwordFile, caFile and plainHTTP go with repository")
        if bool(self.username) != bool(self.passwordFile):
            raise ValueError("username and passwordFile go together")
        return self

    def spec(self) -> HelmSpec:
        """As the desired-state process wants it."""
        return HelmSpec(
            chart=self.chart,
            repository=self.repository.rstrip("/"),
            version=self.version,
            chart_interval=self.chartInterval,
            username=self.username,
            password_file=self.passwordFile or "",
            ca_file=self.caFile or "",
            plain_http=self.plainHTTP,
            release_name=self.releaseName,
            namespace=self.namespace,
            values_files=tuple(self.valuesFiles),
            values=json.dumps(self.values, sort_keys=True),
            include_crds=self.includeCRDs,
            include_hooks=self.hooks == "include",
            dependencies=self.dependencies,
            kube_version=self.kubeVersion,
            api_versions=tuple(self.apiVersions),
        )


class VariablesSource(Section):
    """A ConfigMap or Secret in the cluster whose keys are variables; later ones win, `vars` win over all."""

    configMap: str = Field("", examples=["cluster-vars"], description="Name of a ConfigMap.")  # noqa: N815
    secret: str = Field("", description="Name of a Secret, instead.")
    namespace: str = Field("default", description="Its namespace.")
    optional: bool = Field(default=False, description="It may be missing.")

    @model_validator(mode="after")
    def _names_one(self) -> "VariablesSource":
        if bool(self.configMap) == bool(self.secret):
            raise ValueError("an entry of varsFrom names a configMap or a secret")
        _matches(self.configMap or self.secret, _NAME, "is no name of a ConfigMap or Secret")
        return self

    def spec(self) -> VariablesFrom:
        """Convert to the daemon's form."""
        kind = "ConfigMap" if self.configMap else "Secret"
        return VariablesFrom(kind, self.namespace, self.configMap or self.secret, optional=self.optional)


class Sops(Section):
    """Keys of SOPS, each by file."""

    ageKeyFile: FilePath | None = Field(  # noqa: N815
        None, examples=["/etc/driftwatch/age/keys.txt"], description="File with age identities, as age-keygen makes it."
    )
    gnupgHome: FilePath | None = Field(  # noqa: N815
        None, examples=["/etc/driftwatch/gnupg"], description="GnuPG home with the secret PGP keys."
    )

    def spec(self) -> SopsSpec:
        """As the desired-state process wants it."""
        return SopsSpec(age_key_file=self.ageKeyFile or "", gnupg_home=self.gnupgHome or "")


class ToolLimitsSection(Section):
    """Bounds of one run of a tool."""

    timeout: Duration = Field(60.0, description="Longest time of one run.")
    memory: str = Field("1Gi", pattern=_SIZE, description="Memory of one run, as 512Mi or 1Gi.")
    output: str = Field("100Mi", pattern=_SIZE, description="Largest output of one run.")

    def spec(self) -> ToolLimits:
        """As the desired-state process wants it."""
        return ToolLimits(self.timeout, _bytes(self.memory), _bytes(self.output))
