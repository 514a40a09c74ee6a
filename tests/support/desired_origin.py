"""A real Git repository that the tests commit to."""

import os
import subprocess
from pathlib import Path

from driftwatch.source_spec import SourceSpec

_AUTHOR = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "Test"), ("EMAIL", "test@example.com"))
}


def config_map(name, **data):
    """A ConfigMap as YAML."""
    return f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {data or {}}\n"


class Origin:
    """A repository with a work tree, on branch `main`."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main", *options)

    def git(self, *arguments: str, stdin: str | None = None) -> str:
        """Output of git in this repository."""
        environment = {**os.environ, **_AUTHOR, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        command = ["git", "-C", str(self.folder), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True, input=stdin)
        return done.stdout.strip()

    def commit(self, files: dict[str, str | bytes | None], message: str = "change") -> str:
        """Write (or, for None, remove) these files and commit; the commit's id."""
        for name, content in files.items():
            file = self.folder / name
            if content is None:
                file.unlink()
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def spec(self, mirrors: Path, **changes) -> SourceSpec:
        """A source that follows this repository."""
        values = {
            "name": "shop", "repository": str(self.folder), "revision": "main", "path": "", "interval": 30.0,
            "timeout": 20.0, "namespace": "default", "mirror": str(mirrors / "shop"),
        }  # fmt: skip
        return SourceSpec(**{**values, **changes})
