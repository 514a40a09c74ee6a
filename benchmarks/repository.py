"""A local Git repository for the commits of a run."""

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

GIT_SECONDS = 300.0
COMMIT_PAUSE = 0.5  # seconds between the commits of `keep_committing`
_ENVIRONMENT = {
    # The user's settings (hooks, signing, templates) must not affect a measurement.
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_AUTHOR_NAME": "bench",
    "GIT_AUTHOR_EMAIL": "bench@example.invalid",
    "GIT_COMMITTER_NAME": "bench",
    "GIT_COMMITTER_EMAIL": "bench@example.invalid",
}


class Repository:
    """A working copy with one branch, `main`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def commit(self, files: dict[PurePosixPath, str], message: str) -> None:
        """Write the files and commit them."""
        for name, text in files.items():
            file = self.folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        self.git("add", "--all")
        self.git("commit", "--quiet", f"--message={message}")

    def clone(self, folder: Path) -> Path:
        """A clone in `folder`."""
        self.git("clone", "--quiet", str(self.folder), str(folder))
        return folder

    def git(self, *arguments: str) -> None:
        """Run git in the working copy."""
        subprocess.run(
            ["git", *arguments],
            cwd=self.folder,
            env=os.environ | _ENVIRONMENT,
            check=True,
            timeout=GIT_SECONDS,
            stdin=subprocess.DEVNULL,
        )


@contextmanager
def keep_committing(
    repository: Repository, files: Callable[[int], dict[PurePosixPath, str]], pause: float = COMMIT_PAUSE
) -> Iterator[None]:
    """Commit the files of revision 1, 2, and so on within the context, with `pause` seconds between two commits."""
    done = threading.Event()

    def commit() -> None:
        revision = 0
        while True:
            revision += 1
            repository.commit(files(revision), f"Revision {revision}")
            if done.wait(pause):
                return

    commits = threading.Thread(target=commit)
    commits.start()
    try:
        yield
    finally:
        done.set()
        commits.join()
