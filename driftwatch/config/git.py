"""Settings for access to a source's repository: credentials, CA, proxy, trusted signatures and webhook.

The configuration contains no secrets, only names of files and environment variables with secrets. Invalid combinations
are rejected when the file is read. The existence of files is checked at each use.
"""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from driftwatch.config.values import FilePath, Section, is_remote, resolved
from driftwatch.git.semver_range import Range
from driftwatch.secret import SecretRef
from driftwatch.source_spec import TRANSPORTS, GitAccess, Verification, VerifyMode, carries_credentials, transport

PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")

VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


def _range(value: str) -> str:
    Range(value)
    return value


SemverRange = Annotated[str, AfterValidator(_range)]


def _secret(file: str | None, variable: str | None) -> SecretRef:
    return SecretRef(file or "", variable or "")


def _one_place(section: Section, *names: str) -> None:
    for name in names:
        if getattr(section, f"{name}File") and getattr(section, f"{name}Env"):
            raise ValueError(f"{name}File and {name}Env both name the same thing; take one of them away")


class Auth(Section):
    """Who we are to the repository's host. Without any of it, Git's own configuration counts."""

    usernameFile: FilePath | None = Field(  # noqa: N815  keys of the file are camelCase, as Kubernetes' are
        None, examples=["/etc/driftwatch/apps/username"], description="File with the user name, for https."
    )
    usernameEnv: VariableName | None = Field(  # noqa: N815
        None, examples=["APPS_USERNAME"], description="Environment variable with the user name, for https."
    )
    passwordFile: FilePath | None = Field(  # noqa: N815
        None,
        examples=["/etc/driftwatch/apps/password"],
        description="File with the password, for https; goes with a user name.",
    )
    passwordEnv: VariableName | None = Field(  # noqa: N815
        None, examples=["APPS_PASSWORD"], description="Environment variable with the password, for https."
    )
    tokenFile: FilePath | None = Field(  # noqa: N815
        None,
        examples=["/etc/driftwatch/apps/token"],
        description="File with an access token, for https. It is sent as a password, with the user name if there is "
        "one, else with x-access-token, which GitHub, GitLab and Gitea take.",
    )
    tokenEnv: VariableName | None = Field(  # noqa: N815
        None, examples=["APPS_TOKEN"], description="Environment variable with an access token, for https."
    )
    sshKeyFile: FilePath | None = Field(  # noqa: N815
        None,
        examples=["/etc/driftwatch/apps/identity"],
        description="File with a private key without passphrase, for ssh, which only its owner may read; goes with "
        "knownHostsFile.",
    )
    sshKeyEnv: VariableName | None = Field(  # noqa: N815
        None,
        examples=["APPS_SSH_KEY"],
        description="Environment variable with such a key, line breaks and all; ssh is given it from memory.",
    )
    knownHostsFile: FilePath | None = Field(  # noqa: N815
        None,
        examples=["/etc/driftwatch/apps/known_hosts"],
        description="File with the host keys that are taken, for ssh, as ssh-keyscan prints them. No other is.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "Auth":
        _one_place(self, "username", "password", "token")
        username, password = self.usernameFile or self.usernameEnv, self.passwordFile or self.passwordEnv
        token = self.tokenFile or self.tokenEnv
        if token and password:
            raise ValueError("there is a token and a password; the host takes one of them")
        if password and not username:
            raise ValueError("a password goes with usernameFile or usernameEnv")
        if username and not (password or token):
            raise ValueError("a user name goes with a password or a token")
        if self.sshKeyFile and self.sshKeyEnv:
            raise ValueError("sshKeyFile and sshKeyEnv: the key is in one place")
        if (self.sshKeyFile or self.sshKeyEnv) and not self.knownHostsFile:
            raise ValueError("a key for ssh goes with knownHostsFile; `ssh-keyscan HOST` prints what belongs into it")
        return self

    @property
    def for_https(self) -> bool:
        """Whether a setting for https is used."""
        return bool(self.usernameFile or self.usernameEnv or self.tokenFile or self.tokenEnv)

    @property
    def for_ssh(self) -> bool:
        """Whether a setting for ssh is used."""
        return bool(self.sshKeyFile or self.sshKeyEnv or self.knownHostsFile)


class Proxy(Section):
    """The proxy between us and the repository's host, for https and http."""

    url: str | None = Field(
        None,
        examples=["http://proxy.example.com:3128"],
        description="Address of the proxy (http, https, socks5 or socks5h). None: what https_proxy and no_proxy say.",
    )
    usernameFile: FilePath | None = Field(  # noqa: N815
        None, examples=["/etc/driftwatch/proxy/username"], description="File with the user name for the proxy."
    )
    usernameEnv: VariableName | None = Field(  # noqa: N815
        None, examples=["PROXY_USERNAME"], description="Environment variable with the user name for the proxy."
    )
    passwordFile: FilePath | None = Field(  # noqa: N815
        None, examples=["/etc/driftwatch/proxy/password"], description="File with the password for the proxy."
    )
    passwordEnv: VariableName | None = Field(  # noqa: N815
        None, examples=["PROXY_PASSWORD"], description="Environment variable with the password for the proxy."
    )

    @field_validator("url")
    @classmethod
    def _is_proxy(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in PROXY_SCHEMES or not parts.hostname or parts.path not in ("", "/"):
            raise ValueError("a proxy is SCHEME://HOST:PORT, with http, https, socks5 or socks5h as scheme")
        if parts.username is not None:
            raise ValueError("credentials do not belong into the address; use usernameFile and passwordFile")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _fits_together(self) -> "Proxy":
        _one_place(self, "username", "password")
        username, password = self.usernameFile or self.usernameEnv, self.passwordFile or self.passwordEnv
        if bool(username) != bool(password):
            raise ValueError("a user name and a password go together")
        if username and self.url is None:
            raise ValueError("credentials for a proxy go with its url")
        return self


class Verify(Section):
    """Whose signatures a commit needs. A commit without one is refused, and the last good one stays in force."""

    mode: VerifyMode | None = Field(
        None,
        examples=["head"],
        description="What has to be signed: head (the commit), tag (the annotated tag that the revision names) or "
        "tagAndHead. None: head, if there are keys; else nothing.",
    )
    gpgKeysFile: FilePath | None = Field(  # noqa: N815
        None,
        examples=["/etc/driftwatch/apps/keys.asc"],
        description="File with the GPG public keys whose signatures are taken, as `gpg --export` writes them.",
    )
    sshAllowedSignersFile: FilePath | None = Field(  # noqa: N815
        None,
        examples=["/etc/driftwatch/apps/allowed_signers"],
        description="File with the SSH keys whose signatures are taken, in the form of ssh-keygen's ALLOWED SIGNERS.",
    )

    @model_validator(mode="after")
    def _has_keys(self) -> "Verify":
        if self.mode is not None and not (self.gpgKeysFile or self.sshAllowedSignersFile):
            raise ValueError("mode goes with gpgKeysFile or sshAllowedSignersFile: without keys nothing is taken")
        return self

    def verification(self) -> Verification | None:
        """Return the signature settings for the desired-state process, None for no verification."""
        if not (self.gpgKeysFile or self.sshAllowedSignersFile):
            return None
        return Verification(self.mode or VerifyMode.HEAD, self.gpgKeysFile or "", self.sshAllowedSignersFile or "")


class Webhook(Section):
    """The secret that the repository's host shares with us. Without it, POST /hooks/NAME is refused."""

    secretFile: FilePath | None = Field(  # noqa: N815
        None, examples=["/etc/driftwatch/apps/webhook"], description="File with the webhook's secret."
    )
    secretEnv: VariableName | None = Field(  # noqa: N815
        None, examples=["APPS_WEBHOOK"], description="Environment variable with the webhook's secret."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "Webhook":
        _one_place(self, "secret")
        return self

    def secret(self) -> SecretRef:
        """Return the reference to the secret."""
        return _secret(self.secretFile, self.secretEnv)


def checked_repository(value: str, info: ValidationInfo) -> str:
    """Check a repository's address and make a path absolute. Raises `ValueError` for an address Git must not get."""
    if not is_remote(value):
        return resolved(value, info)
    if transport(value) not in TRANSPORTS:
        raise ValueError(f"{transport(value)!r} is no way to a repository; it is an https, ssh or file URL, or a path")
    if "://" in value:
        urlsplit(value)  # says what is wrong with it
    if carries_credentials(value):
        raise ValueError("credentials do not belong into the address; auth names where they are")
    return value


def check_access(repository: str, auth: Auth, proxy: Proxy, ca_file: str | None) -> None:
    """Raise `ValueError` if a setting does not apply to the repository's transport."""
    by = transport(repository)
    web = by in ("https", "http")
    for given, name, fits, needed in (
        (auth.for_https, "auth: user name, password and token", web, "an https address"),
        (auth.for_ssh, "auth: sshKeyFile, sshKeyEnv and knownHostsFile", by == "ssh", "an ssh address"),
        (proxy.url, "proxy", web, "an https address; for ssh, ~/.ssh/config has ProxyJump and ProxyCommand"),
        (ca_file, "caFile", by == "https", "an https address"),
    ):
        if given and not fits:
            raise ValueError(f"{name} is for {needed}, and the repository is {repository}")


def git_access(auth: Auth, proxy: Proxy, ca_file: str | None) -> GitAccess:
    """Return the access settings for the desired-state process."""
    return GitAccess(
        username=_secret(auth.usernameFile, auth.usernameEnv),
        password=_secret(auth.passwordFile, auth.passwordEnv),
        token=_secret(auth.tokenFile, auth.tokenEnv),
        ssh_key_file=auth.sshKeyFile or "",
        ssh_key_variable=auth.sshKeyEnv or "",
        known_hosts_file=auth.knownHostsFile or "",
        ca_file=ca_file or "",
        proxy=proxy.url or "",
        proxy_username=_secret(proxy.usernameFile, proxy.usernameEnv),
        proxy_password=_secret(proxy.passwordFile, proxy.passwordEnv),
    )
