"""Errors that keep a source from producing a snapshot.

SourceError
├── GitError            waiting may help: network, credentials, disk
│   ├── AccessDenied    the remote or proxy rejects the credentials, or a configured credential is missing
│   ├── RemoteUntrusted the remote's certificate or host key is not trusted
│   ├── Unreachable     the remote or proxy does not answer
│   ├── DiskFull        the mirror cannot be written
│   └── MirrorCorrupt   the mirror on disk is damaged and will be rebuilt
├── NotDelivered        a snapshot did not reach the daemon whole; it is sent again
├── RenderError         kustomize, helm or one of their inputs failed; another commit or setting may help
└── FatalSourceError    waiting cannot help; the configuration, repository or revision has to change
    ├── NotARepository
    ├── RevisionNotFound
    ├── PathNotFound
    └── SignatureRefused
"""

from typing import ClassVar


class SourceError(Exception):
    """A source has no new snapshot. The message names source, repository and revision, and quotes git's stderr."""

    reason: ClassVar[str] = "other"
    """Value of the `reason` label in the metric `driftwatch_git_failures_total`."""


class GitError(SourceError):
    """Git failed for a reason that may be temporary."""


class AccessDenied(GitError):
    """Credentials are missing, wrong or insufficient."""

    reason = "credentials"


class RemoteUntrusted(GitError):
    """The remote's certificate or host key is not trusted."""

    reason = "identity"


class Unreachable(GitError):
    """The remote, or the proxy in front of it, does not answer."""

    reason = "unreachable"


class DiskFull(GitError):
    """The mirror cannot be written: the disk or a quota is full."""

    reason = "disk"


class MirrorCorrupt(GitError):
    """The mirror lacks objects that it should have, or is no longer a repository."""

    reason = "corrupt"


class NotDelivered(SourceError):
    """The daemon did not get the snapshot of a commit, or not all of it; the one before stays in force."""

    reason = "delivery"


class RenderError(SourceError):
    """A commit's files cannot be rendered to manifests. The message quotes the tool's stderr.

    `passes` is true if the same files may render later, for example when a registry is unreachable or a tool is not
    installed. `file` and `line` are the location in the repository to fix; "" and 0 if it is unknown or outside.
    """

    reason = "render"

    def __init__(self, message: str, *, passes: bool = False, file: str = "", line: int = 0) -> None:
        super().__init__(message)
        self.passes = passes
        self.file = file
        self.line = line


class FatalSourceError(SourceError):
    """The source cannot work as configured."""


class NotARepository(FatalSourceError):
    """The address has no repository, or none that driftwatch may read."""

    reason = "repository"


class RevisionNotFound(FatalSourceError):
    """The repository has no such branch, tag or commit, or no version in the range."""

    reason = "revision"


class PathNotFound(FatalSourceError):
    """The commit has no such directory."""

    reason = "path"


class SignatureRefused(FatalSourceError):
    """The commit or tag has no signature by a trusted key."""

    reason = "signature"
