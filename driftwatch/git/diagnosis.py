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


def is_damage(words: str, repository: str) -> bool:
    """Whether git's stderr means a damaged mirror: it reports damage, or it matches no other known cause.

    Rebuilding a healthy mirror costs one fetch. Failing to rebuild a damaged one costs every later commit.
    """
    return bool(_DAMAGE.search(words)) or recognised(words, repository) is None


class _Meaning(NamedTuple):
    words: re.Pattern[str]
    error: type[SourceError]
    hint: str


def _meaning(words: str, error: type[SourceError], hint: str = "") -> _Meaning:
    return _Meaning(re.compile(words, re.IGNORECASE), error, hint)


_MEANINGS = (
    _meaning(
        r"no space left|disk quota exceeded|file too large|signal 25\b",
        DiskFull,
        "free some space below state.directory",
    ),
    _meaning(
        r"host key verification failed|REMOTE HOST IDENTIFICATION",
        RemoteUntrusted,
        "the host's key is not in auth.knownHostsFile, or another one is; compare it with what the host's operator "
        "says, and add it (ssh-keyscan prints it)",
    ),
    _meaning(
        r"SSL certificate|certificate verif|server verification failed|SSL peer|self.signed",
        RemoteUntrusted,
        "caFile names the authority to trust",
    ),
    _meaning(
        r"from proxy after CONNECT|HTTP code 407|response 407|CONNECT tunnel failed",
        AccessDenied,
        "the proxy refuses; proxy.usernameFile and proxy.passwordFile name what it is told",
    ),
    _meaning(r"proxy", Unreachable, "is it the proxy that is meant?"),
    _meaning(
        r"could not read (username|password)",
        AccessDenied,
        "the remote wants credentials; auth.tokenFile, or auth.usernameFile and auth.passwordFile, name them",
    ),
    _meaning(
        r"authentication failed|invalid credentials|returned error: 40[13]|access denied",
        AccessDenied,
        "the credentials are wrong, expired, or may not read this repository",
    ),
    _meaning(
        r"permission denied \(|too many authentication failures|load key",
        AccessDenied,
        "the host does not take the key of auth.sshKeyFile: is it registered there, and without a passphrase?",
    ),
    _meaning(
        r"could not resolve|couldn't resolve|failed to connect|couldn't connect|connection (refused|reset|timed out)|"
        r"no route to host|network is unreachable|returned error: 5\d\d|the requested url returned error: 429|"
        r"connection closed|operation timed out|name resolution|unexpected disconnect|early EOF|recv failure",
        Unreachable,
    ),
    _meaning(r"does not appear to be a git repo|repository .*not found|not a git repo", NotARepository),
)


def recognised(words: str, repository: str) -> SourceError | None:
    """The error that git's stderr about `repository` means, with a hint for the operator; None if nothing matches.

    The hint names `repository`, so it must be free of credentials.
    """
    if re.search(r"dubious ownership|unsafe repository", words, re.IGNORECASE):
        hint = f"allow it: git config --global --add safe.directory {repository}"
        return NotARepository(f"belongs to another user; {hint} ({words})")
    for meaning in _MEANINGS:
        if meaning.words.search(words):
            return meaning.error(f"{words} ({meaning.hint})" if meaning.hint else words)
    return None
