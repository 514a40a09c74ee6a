"""What can go wrong between a source and its snapshot.

SourceError
├── GitError            waiting may help: network, credentials, disk
│   └── MirrorCorrupt   the mirror on disk is damaged; it is built anew
├── RenderError         kustomize, helm or what they need failed; another commit or setting may help
└── FatalSourceError    waiting cannot help, somebody has to change something
    ├── NotARepository
    ├── RevisionNotFound
    └── PathNotFound
"""


class SourceError(Exception):
    """A source has no new snapshot; the message names source, repository, revision and Git's own words."""


class GitError(SourceError):
    """Git failed in a way that may pass."""


class MirrorCorrupt(GitError):
    """The mirror lacks what it should have, or is no repository any more."""


class RenderError(SourceError):
    """Manifests cannot be made of a commit's files; the message has the tool's words.

    `passes` says that the same files may render later: a registry does not answer, a tool is not installed.
    """

    def __init__(self, message: str, *, passes: bool = False) -> None:
        super().__init__(message)
        self.passes = passes


class FatalSourceError(SourceError):
    """The source cannot work as it is configured."""


class NotARepository(FatalSourceError):
    """There is no repository, or none that we may read."""


class RevisionNotFound(FatalSourceError):
    """The repository has no such branch, tag or commit."""


class PathNotFound(FatalSourceError):
    """The commit has no such folder."""
