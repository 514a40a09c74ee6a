"""A git that is missing, too old or crashing is told in one sentence, with an exit status."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONFIG = "sources: [{name: shop, repository: /nowhere}]\n"
GITS = {
    "missing": (None, "was not found"),
    "too old": ("#!/bin/sh\necho git version 2.20.1\n", "git 2.20 is too old"),
    "crashing": ("#!/bin/sh\nkill -SEGV $$\n", "fails (ended by signal 11)"),
}


@pytest.fixture
def run(tmp_path):
    def run(command, script):
        if script is not None:
            program = tmp_path / "git"
            program.write_text(script)
            program.chmod(0o755)
        (tmp_path / "config.yaml").write_text(CONFIG)
        environment = {**os.environ, "PATH": str(tmp_path), "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
        return subprocess.run(
            [sys.executable, "-m", "driftwatch", *command.split(), f"--config={tmp_path}/config.yaml"],
            capture_output=True, text=True, env=environment, check=False, timeout=120, cwd=tmp_path,
        )  # fmt: skip

    return run


@pytest.mark.parametrize("git", GITS)
@pytest.mark.parametrize("command", ["run", "validate", "render", "render --cluster", "rbac", "diff"])
def test_h11_a_git_that_cannot_be_used_is_told_in_one_sentence(run, command, git):
    """What is missing, which version is needed, and what to do; no traceback."""
    script, words = GITS[git]
    done = run(command, script)
    said = done.stdout + done.stderr
    assert done.returncode != 0, said
    assert words in said
    assert said.count("needs git 2.29 or newer on PATH; install it") == 1
    assert "Traceback" not in said
