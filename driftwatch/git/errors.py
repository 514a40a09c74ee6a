"""What can go wrong between a source and its snapshot.

SourceError
├── GitError            waiting may help: network, credentials, disk
│   ├── AccessDenied    the remote, or the way to it, refuses what we have; or what we should have is not there
│   ├── RemoteUntrusted the remote cannot show that it is who it should be
│   ├── Unreachable     nobody answers
│   ├── DiskFull        the mirror cannot be written
│   └── MirrorCorrupt   the mirror on disk is damaged; it is built anew
├── NotDelivered        a snapshot did not reach the daemon whole; it is sent again
├── RenderError         kustomize, helm or what they need failed; another commit or setting may help
└── FatalSourceError    waiting cannot help, somebody has to change something
    ├── NotARepository
    ├── RevisionNotFound
    ├── PathNotFound
    └── SignatureRefused
"""

from typing import ClassVar


class SourceError(Exception):
    """A source has no new snapshot; the message names source, repository, revision and Git's own words."""

    reason: ClassVar[str] = "other"
    """What it is called in the metric `driftwatch_git_failures_total`."""


class GitError(SourceError):
    """Git failed in a way that may pass."""


class AccessDenied(GitError):
    """Credentials are missing, wrong, or not enough."""

    reason = "credentials"


class RemoteUntrusted(GitError):
    """The remote's certificate or host key is not one that we take."""

    reason = "identity"


class Unreachable(GitError):
    """The remote, or the proxy before it, does not answer."""

    reason = "unreachable"


class DiskFull(GitError):
    """The mirror cannot be written: no space, or a quota."""

    reason = "disk"


class MirrorCorrupt(GitError):
    """The mirror lacks what it should have, or is no repository any more."""

    reason = "corrupt"


class NotDelivered(SourceError):
    """The daemon did not get the snapshot of a commit, or not all of it; the one before stays in force."""

    reason = "delivery"


class RenderError(SourceError):
    """Manifests cannot be made of a commit's files; the message has the tool's words.

    `passes` says that the same files may render later: a registry does not answer, a tool is not installed. `file` and
    `line` are where in the repository it has to be mended, "" and 0 where that is not known, or elsewhere.
    """

    reason = "render"

    def __init__(self, message: str, *, passes: bool = False, file: str = "", line: int = 0) -> None:
        super().__init__(message)
        self.passes = passes
        self.file = file
        self.line = line


class FatalSourceError(SourceError):
    """The source cannot work as it is configured."""


class NotARepository(FatalSourceError):
    """There is no repository, or none that we may read."""

    reason = "repository"


class RevisionNotFound(FatalSourceError):
    """The repository has no such branch, tag or commit, and no version in the range."""

    reason = "revision"


class PathNotFound(FatalSourceError):
    """The commit has no such folder."""

    reason = "path"


class SignatureRefused(FatalSourceError):
    """The commit or tag is not signed by anybody whose signature is taken."""

    reason = "signature"
