"""A real Git repository that tests commit to."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

Content = str | bytes | dict[str, Any] | list[dict[str, Any]] | None


class Repository:
    """A repository with one branch, `main`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        # Whoever runs the tests may have hooks, signing and templates configured.
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "tests",
            "GIT_AUTHOR_EMAIL": "tests@example.com",
            "GIT_COMMITTER_NAME": "tests",
            "GIT_COMMITTER_EMAIL": "tests@example.com",
        }
        self._git("init", "--quiet", "--initial-branch=main")

    def commit(self, files: Mapping[str, Content]) -> str:
        """Write files, or delete those that are None, and commit them. Returns the commit.

        A mapping is written as one YAML document, a list of mappings as several.
        """
        for path, content in files.items():
            file = self.folder / path
            if content is None:
                file.unlink()
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(_bytes(content))
        self._git("add", "--all")
        self._git("commit", "--quiet", "--allow-empty", "--message=tests")
        return self._git("rev-parse", "HEAD").strip()

    def _git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=self.folder, env=self._environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"git {' '.join(arguments)}: {done.stderr}"
        return done.stdout


def _bytes(content: str | bytes | dict[str, Any] | list[dict[str, Any]]) -> bytes:
    match content:
        case bytes():
            return content
        case str():
            return content.encode()
        case dict():
            return yaml.safe_dump(content, sort_keys=False).encode()
        case _:
            return yaml.safe_dump_all(content, sort_keys=False).encode()
