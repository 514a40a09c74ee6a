"""Checks that a supported git is installed."""

import re

from driftwatch import child_process

LEAST = (2, 29)
"""The first version with `git fetch --no-write-fetch-head` and `git init --object-format`."""

_ANSWER_SECONDS = 20.0
_VERSION = re.compile(rb"git version (\d+)\.(\d+)")


def git_trouble() -> str:
    """Return why git cannot be used and what to do, in one sentence; "" if it can be used."""
    wanted = f"driftwatch needs git {LEAST[0]}.{LEAST[1]} or newer on PATH; install it"
    try:
        done = child_process.run(["git", "version"], _ANSWER_SECONDS)
    except FileNotFoundError:
        return f"the program `git` was not found: {wanted}"
    except OSError as error:  # TimeoutError among them
        return f"the program `git` cannot be run ({error}): {wanted}"
    found = _VERSION.match(done.output)
    if done.status != 0 or found is None:
        said = (done.errors or done.output).decode("utf-8", "replace").strip()[:200]
        ended = f"ended by signal {-done.status}" if done.status < 0 else f"exit status {done.status}"
        return f"`git version` fails ({ended}{': ' if said else ''}{said}): {wanted}"
    if (version := (int(found[1]), int(found[2]))) < LEAST:
        return f"git {version[0]}.{version[1]} is too old: {wanted}"
    return ""
