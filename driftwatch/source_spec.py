"""Specification of a source: Git access, signature verification, rendering options, and rules for Git addresses.

The desired-state process gets these plain values. They hold no credentials, only the locations of files and
environment variables. `ClusterCapabilities.variables` is the exception: it may hold values of Secrets.
"""

import re
from enum import StrEnum
from urllib.parse import urlsplit

import msgspec

from driftwatch.secret import SecretRef

TRANSPORTS = frozenset({"https", "http", "ssh", "git", "file"})
"""Transports that Git may use, beside plain paths. None of them runs a program that the address names."""

_SECRET_IN_QUERY = re.compile(r"[?&][\w-]*(?:token|password|secret|key)=", re.IGNORECASE)
_ALIASES = {"git+ssh": "ssh", "ssh+git": "ssh"}


class GitAccess(msgspec.Struct, frozen=True):
    """Credentials, certificates and proxy for a remote. Git's own configuration applies to everything unset.

    `token` is a password that needs no user name. `proxy` is a URL without credentials. All files are paths.
    """

    username: SecretRef = SecretRef()
    password: SecretRef = SecretRef()
    token: SecretRef = SecretRef()
    ssh_key_file: str = ""
    ssh_key_variable: str = ""
    known_hosts_file: str = ""
    ca_file: str = ""
    proxy: str = ""
    proxy_username: SecretRef = SecretRef()
    proxy_password: SecretRef = SecretRef()


class VerifyMode(StrEnum):
    """What has to be signed: the commit at the revision, the annotated tag that names it, or both."""

    HEAD = "head"
    TAG = "tag"
    TAG_AND_HEAD = "tagAndHead"


class Verification(msgspec.Struct, frozen=True):
    """Trusted keys: GPG public keys (armoured or binary), SSH keys in allowed-signers format, or either."""

    mode: VerifyMode = VerifyMode.HEAD
    gpg_keys_file: str = ""
    ssh_allowed_signers_file: str = ""


class KustomizeSpec(msgspec.Struct, frozen=True):
    """Options of `kustomize build`; `helm` enables its Helm chart inflator."""

    helm: bool = False


class HelmSpec(msgspec.Struct, frozen=True):
    """The chart to render and the options of `helm template`; `config.rendering.Helm` documents each.

    `chart_interval` is in seconds, `values` is a JSON object as text.
    """

    chart: str = ""
    repository: str = ""
    version: str = ""
    chart_interval: float = 600.0
    username: str = ""
    password_file: str = ""
    ca_file: str = ""
    plain_http: bool = False
    release_name: str = ""
    namespace: str = ""
    values_files: tuple[str, ...] = ()
    values: str = "{}"
    include_crds: bool = True
    include_hooks: bool = False
    dependencies: bool = False
    kube_version: str = ""
    api_versions: tuple[str, ...] = ()


class VariablesFrom(msgspec.Struct, frozen=True):
    """A ConfigMap or Secret in the cluster whose keys become variables."""

    kind: str
    namespace: str
    name: str
    optional: bool = False

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


class SopsSpec(msgspec.Struct, frozen=True):
    """Locations of the decryption keys; "" for none."""

    age_key_file: str = ""
    gnupg_home: str = ""


class ToolLimits(msgspec.Struct, frozen=True):
    """Limits of one run of a tool: `timeout` in seconds, `memory` and `output` in bytes."""

    timeout: float = 60.0
    memory: int = 2**30
    output: int = 100 * 2**20


class RenderSpec(msgspec.Struct, frozen=True):
    """How a source's files are rendered to manifests: `kind` is auto, plain, kustomize or helm."""

    kind: str = "auto"
    kustomize: KustomizeSpec = KustomizeSpec()
    helm: HelmSpec = HelmSpec()
    variables: dict[str, str] = {}
    variables_from: tuple[VariablesFrom, ...] = ()
    sops: SopsSpec = SopsSpec()
    network: bool = False
    limits: ToolLimits = ToolLimits()

    @property
    def substitutes(self) -> bool:
        """Whether variables are substituted."""
        return bool(self.variables or self.variables_from)


class ClusterCapabilities(msgspec.Struct, frozen=True):
    """Cluster data that rendering uses.

    `kube_version` (`1.36.3`) and `api_versions` are for Helm templates; "" and () if unknown. `variables` maps a source
    to the variables from its ConfigMaps and Secrets; `missing` maps a source to the reason why some are unavailable.
    """

    kube_version: str = ""
    api_versions: tuple[str, ...] = ()
    variables: dict[str, dict[str, str]] = {}
    missing: dict[str, str] = {}

    def __repr__(self) -> str:
        """Omit the variables' values, which may come from a Secret."""
        return f"Surroundings(kube_version={self.kube_version!r}, sources={sorted(self.variables)})"


class SourceSpec(msgspec.Struct, frozen=True):
    """A source as the desired-state process needs it. `interval` and `timeout` are in seconds; `mirror` is a path.

    `semver`, unless "", is a version range; the highest matching tag is used instead of `revision`.
    """

    name: str
    repository: str
    revision: str
    path: str
    interval: float
    timeout: float
    namespace: str
    mirror: str
    semver: str = ""
    access: GitAccess = GitAccess()
    verification: Verification | None = None
    render: RenderSpec = RenderSpec()


def transport(repository: str) -> str:
    """The transport of a repository address: a URL's scheme, `ssh` for `git@host:path`, "" for a path.

    For the address of a remote helper (`ext::sh -c ...`) it is the helper's name.
    """
    before_slash = repository.partition("/")[0]
    if ":" not in before_slash:
        return ""
    scheme, _, rest = repository.partition(":")
    if rest.startswith(":"):
        return scheme.lower()
    if rest.startswith("//"):
        return _ALIASES.get(scheme.lower(), scheme.lower())
    return "ssh"


def carries_credentials(repository: str) -> bool:
    """Whether the address contains a secret. The user name of an SSH address is not one."""
    if transport(repository) not in TRANSPORTS or "://" not in repository:
        return False
    try:
        parts = urlsplit(repository)
        secret = parts.password is not None or (parts.username is not None and transport(repository) != "ssh")
    except ValueError:  # not a URL; git reports it
        return "@" in repository
    return secret or _SECRET_IN_QUERY.search(repository) is not None
