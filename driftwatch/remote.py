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
