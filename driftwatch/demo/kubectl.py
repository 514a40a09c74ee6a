"""Runs kubectl as the user would, on the demo's cluster only."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from driftwatch.demo.errors import DemoError
from driftwatch.demo.repository import NAME, NAMESPACE

ASK_SECONDS = 20.0  # for a read; a write gets the time limit of its step
_OBJECTS = tuple(f"{kind}/{NAME}" for kind in ("namespace", "deployment", "service", "configmap"))


class Kubectl:
    """Runs the program `path` with `options`, which select the cluster."""

    def __init__(self, path: Path, options: list[str], cache: Path) -> None:
        self.path = path
        self._options = [*options, f"--cache-dir={cache}"]
        # The user's kubectl preferences may change defaults of the commands that the demo shows.
        self._environment = {**os.environ, "KUBERC": "off"}

    def run(self, *arguments: str, seconds: float = ASK_SECONDS) -> str:
        """The output of kubectl. Raises `DemoError` with its stderr if it fails or takes longer than `seconds`."""
        shown = f"kubectl {' '.join(arguments)}"
        try:
            done = subprocess.run(
                [self.path, *self._options, *arguments],
                capture_output=True,
                text=True,
                timeout=seconds,
                check=True,
                stdin=subprocess.DEVNULL,
                env=self._environment,
                process_group=0,  # Ctrl-C must reach only the demo, which then cleans up
            )
        except subprocess.CalledProcessError as error:
            raise DemoError(f"`{shown}` failed: {error.stderr.strip()}") from error
        except subprocess.TimeoutExpired as error:
            raise DemoError(f"`{shown}` did not end within {seconds:.0f} s") from error
        except OSError as error:
            raise DemoError(f"{self.path} cannot be run: {error.strerror}") from error
        return done.stdout

    def objects(self) -> dict[str, dict[str, Any]]:
        """The example's live objects, by kind."""
        answer = self.run("--namespace", NAMESPACE, "get", *_OBJECTS, "--ignore-not-found", "--output=json")
        found = json.loads(answer) if answer.strip() else {"items": []}
        return {item["kind"]: item for item in found.get("items", [found])}

    def namespace(self) -> dict[str, Any] | None:
        """The example's namespace, None if it does not exist."""
        answer = self.run("get", "namespace", NAMESPACE, "--ignore-not-found", "--output=json")
        found: dict[str, Any] | None = json.loads(answer) if answer.strip() else None
        return found

    def server(self) -> tuple[str, str]:
        """Address of the API server and name of the context."""
        answer = self.run("config", "view", "--minify", "--output=json")
        view = json.loads(answer)
        return view["clusters"][0]["cluster"]["server"], view.get("current-context", "")
