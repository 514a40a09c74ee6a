"""How a remote repository is reached and whose commits are taken, as configured: plain values, and Git's address rules.

Nothing here is secret: credentials are named by where they are.
"""

import re
from enum import StrEnum
from urllib.parse import urlsplit

import msgspec

from driftwatch.secret import SecretRef

TRANSPORTS = frozenset({"https", "http", "ssh", "git", "file"})
"""What Git may use, beside plain paths: none of them runs a program that the address names."""

_SECRET_IN_QUERY = re.compile(r"[?&][\w-]*(?:token|password|secret|key)=", re.IGNORECASE)
_ALIASES = {"git+ssh": "ssh", "ssh+git": "ssh"}


class GitAccess(msgspec.Struct, frozen=True):
    """Credentials and ways to a remote. Where nothing is said, Git's own configuration counts.

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
    """Whose signatures are taken: GPG public keys (armoured or binary), SSH keys in allowed-signers form, or either."""

    mode: VerifyMode = VerifyMode.HEAD
    gpg_keys_file: str = ""
    ssh_allowed_signers_file: str = ""


def transport(repository: str) -> str:
    """By which protocol Git reaches a repository: a URL's scheme, `ssh` for `git@host:path`, "" for a path.

    A remote helper's address (`ext::sh -c ...`) has its helper's name.
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
    """Whether the address holds what should be secret; the user name of an ssh address is not."""
    if transport(repository) not in TRANSPORTS or "://" not in repository:
        return False
    try:
        parts = urlsplit(repository)
        secret = parts.password is not None or (parts.username is not None and transport(repository) != "ssh")
    except ValueError:  # no URL; Git says so
        return "@" in repository
    return secret or _SECRET_IN_QUERY.search(repository) is not None


class KustomizeSpec(msgspec.Struct, frozen=True):
    """How kustomize builds; `helm` allows its chart inflator."""

    helm: bool = False


class HelmSpec(msgspec.Struct, frozen=True):
    """Which chart is rendered, and how; `config.rendering.Helm` explains each.

    `chart_interval` in seconds, `values` as JSON text of an object.
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
    """A ConfigMap or Secret in the cluster whose keys are variables."""

    kind: str
    namespace: str
    name: str
    optional: bool = False

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


class SopsSpec(msgspec.Struct, frozen=True):
    """Where the keys are that decrypt; "" for none."""

    age_key_file: str = ""
    gnupg_home: str = ""


class ToolLimits(msgspec.Struct, frozen=True):
    """What one run of a tool may use: `timeout` in seconds, `memory` and `output` in bytes."""

    timeout: float = 60.0
    memory: int = 2**30
    output: int = 100 * 2**20


class RenderSpec(msgspec.Struct, frozen=True):
    """How a source's manifests are made of its files: `kind` is auto, plain, kustomize or helm."""

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
        """Whether variables are replaced at all."""
        return bool(self.variables or self.variables_from)


class ClusterCapabilities(msgspec.Struct, frozen=True):
    """What rendering takes from the cluster.

    `kube_version` (`1.36.3`) and `api_versions` are for Helm's templates; "" and none when they are not known.
    `variables` are those of each source's ConfigMaps and Secrets; `missing` says in words what there is not.
    """

    kube_version: str = ""
    api_versions: tuple[str, ...] = ()
    variables: dict[str, dict[str, str]] = {}
    missing: dict[str, str] = {}

    def __repr__(self) -> str:
        """Without the variables' values, which may be a Secret's."""
        return f"Surroundings(kube_version={self.kube_version!r}, sources={sorted(self.variables)})"


class SourceSpec(msgspec.Struct, frozen=True):
    """A source as the desired-state process needs it. `interval` and `timeout` in seconds; mirrors live in `mirror`.

    `semver`, where it is not "", is the range of versions whose highest tag is meant, instead of `revision`.
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
