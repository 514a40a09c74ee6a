"""Classifies git's error output: the matching `SourceError`, and a hint for the operator.

Git has no error codes, only messages; driftwatch runs it with LC_ALL=C so that they are in English. Output that no
pattern matches is passed on unchanged.
"""

import re
from typing import NamedTuple

from driftwatch.git.errors import (
    AccessDenied,
    DiskFull,
    NotARepository,
    RemoteUntrusted,
    SourceError,
    Unreachable,
)

_DAMAGE = re.compile(
    r"bad object|missing (blob|tree|commit|object)|unable to (read|find)|corrupt|loose object|not a git repo|"
    r"invalid object|bad tree|inflate|packfile|bad config|mismatched algorithms|shallow (file|line)|reference broken",
    re.IGNORECASE,
)
"""Matches git's messages about a damaged object database of its own."""


def is_damage(stderr: str, repository: str) -> bool:
    """Whether git's stderr means a damaged mirror: it reports damage, or it matches no other known cause.

    Rebuilding a healthy mirror costs one fetch. Failing to rebuild a damaged one costs every later commit.
    """
    return bool(_DAMAGE.search(stderr)) or classify(stderr, repository) is None


class _Pattern(NamedTuple):
    pattern: re.Pattern[str]
    error: type[SourceError]
    hint: str


def _pattern(pattern: str, error: type[SourceError], hint: str = "") -> _Pattern:
    return _Pattern(re.compile(pattern, re.IGNORECASE), error, hint)


_PATTERNS = (
    _pattern(
        r"no space left|disk quota exceeded|file too large|signal 25\b",
        DiskFull,
        "free some space below state.directory",
    ),
    _pattern(
        r"host key verification failed|REMOTE HOST IDENTIFICATION",
        RemoteUntrusted,
        "the host's key is not in auth.knownHostsFile, or another one is; compare it with what the host's operator "
        "says, and add it (ssh-keyscan prints it)",
    ),
    _pattern(
        r"SSL certificate|certificate verif|server verification failed|SSL peer|self.signed",
        RemoteUntrusted,
        "caFile names the authority to trust",
    ),
    _pattern(
        r"from proxy after CONNECT|HTTP code 407|response 407|CONNECT tunnel failed",
        AccessDenied,
        "the proxy refuses; proxy.usernameFile and proxy.passwordFile name what it is told",
    ),
    _pattern(r"proxy", Unreachable, "is it the proxy that is meant?"),
    _pattern(
        r"could not read (username|password)",
        AccessDenied,
        "the remote wants credentials; auth.tokenFile, or auth.usernameFile and auth.passwordFile, name them",
    ),
    _pattern(
        r"authentication failed|invalid credentials|returned error: 40[13]|access denied",
        AccessDenied,
        "the credentials are wrong, expired, or may not read this repository",
    ),
    _pattern(
        r"permission denied \(|too many authentication failures|load key",
        AccessDenied,
        "the host does not take the key of auth.sshKeyFile: is it registered there, and without a passphrase?",
    ),
    _pattern(
        r"could not resolve|couldn't resolve|failed to connect|couldn't connect|connection (refused|reset|timed out)|"
        r"no route to host|network is unreachable|returned error: 5\d\d|the requested url returned error: 429|"
        r"connection closed|operation timed out|name resolution|unexpected disconnect|early EOF|recv failure",
        Unreachable,
    ),
    _pattern(r"does not appear to be a git repo|repository .*not found|not a git repo", NotARepository),
)


def classify(stderr: str, repository: str) -> SourceError | None:
    """The error that git's stderr about `repository` means, with a hint for the operator; None if nothing matches.

    The hint names `repository`, so it must be free of credentials.
    """
    if re.search(r"dubious ownership|unsafe repository", stderr, re.IGNORECASE):
        hint = f"allow it: git config --global --add safe.directory {repository}"
        return NotARepository(f"belongs to another user; {hint} ({stderr})")
    for known in _PATTERNS:
        if known.pattern.search(stderr):
            return known.error(f"{stderr} ({known.hint})" if known.hint else stderr)
    return None
