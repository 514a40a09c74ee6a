"""Checks that a supported git is installed."""

import re
import subprocess

LEAST = (2, 29)
"""The first version with `git fetch --no-write-fetch-head` and `git init --object-format`."""

_ANSWER_SECONDS = 20.0
_VERSION = re.compile(rb"git version (\d+)\.(\d+)")


def git_trouble() -> str:
    """Return why git cannot be used and what to do, in one sentence; "" if it can be used."""
    wanted = f"driftwatch needs git {LEAST[0]}.{LEAST[1]} or newer on PATH; install it"
    try:
        done = subprocess.run(["git", "version"], capture_output=True, timeout=_ANSWER_SECONDS, check=False)
    except FileNotFoundError:
        return f"the program `git` was not found: {wanted}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"the program `git` cannot be run ({error}): {wanted}"
    found = _VERSION.match(done.stdout)
    if done.returncode != 0 or found is None:
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip()[:200]
        ended = f"ended by signal {-done.returncode}" if done.returncode < 0 else f"exit status {done.returncode}"
        return f"`git version` fails ({ended}{': ' if said else ''}{said}): {wanted}"
    if (version := (int(found[1]), int(found[2]))) < LEAST:
        return f"git {version[0]}.{version[1]} is too old: {wanted}"
    return ""
