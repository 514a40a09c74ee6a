"""kubectl, as a person would use it."""

import os
import subprocess
from pathlib import Path


class Kubectl:
    """Calls kubectl with a kubeconfig: `kubectl("get", "deploy", "-n", namespace).stdout`."""

    def __init__(self, program: Path, kubeconfig: Path, home: Path) -> None:
        self.program = program
        self.kubeconfig = kubeconfig
        # A home of its own: no cache, plugin or preference of whoever runs the tests has a say.
        self._environment = {"PATH": os.defpath, "HOME": str(home)}

    def __call__(
        self,
        *arguments: str,
        input: str | None = None,  # noqa: A002 - as subprocess.run names it
        check: bool = True,
        timeout: float = 30.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl with `input` as its standard input; with `check`, a failure fails the test with its words."""
        done = subprocess.run(
            [self.program, f"--kubeconfig={self.kubeconfig}", *arguments],
            input=input if input is not None else "",
            capture_output=True,
            text=True,
            timeout=timeout,
            env=self._environment,
            check=False,
        )
        assert not check or done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done
