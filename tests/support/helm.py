"""The real helm, which renders the chart of config/deploy."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import yaml
from driftwatch.tools import HELM, ensure

from tests.support.deploy import DEPLOY

Objects = list[dict[str, Any]]


class Helm:
    """Renders the chart."""

    def __init__(self, home: Path) -> None:
        self._program = ensure(HELM).path
        self._home = home

    def __call__(
        self, values: dict[str, Any] | None = None, *, release: str = "driftwatch", namespace: str = "driftwatch-system"
    ) -> subprocess.CompletedProcess[str]:
        """`helm template` with these values."""
        return subprocess.run(
            [self._program, "template", release, DEPLOY / "chart", f"--namespace={namespace}", "--values=-"],
            input=json.dumps(values or {}),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={"PATH": os.defpath, "HOME": str(self._home)},
        )

    def objects(self, values: dict[str, Any] | None = None, **names: str) -> Objects:
        """The objects that it renders."""
        done = self(values, **names)
        assert done.returncode == 0, done.stderr
        return [each for each in yaml.safe_load_all(done.stdout) if each]
