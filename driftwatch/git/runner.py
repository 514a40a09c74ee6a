"""Runs git: without prompts, without code from the repository, and never beyond a time limit.

GitPython's own `kill_after_timeout` lists git's children first and signals those that it found. It misses an ssh
that is just starting, which keeps the pipe open, and the caller waits for ever. Here every git leads a process group
of its own, and the whole group is killed.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

# Without this the import itself fails if git is missing; `_start` reports the missing git.
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
import git
from driftwatch.child_process import OneAtATime, finish
from driftwatch.git.credentials import SSH, Environment
from driftwatch.git.errors import GitError
from driftwatch.secret import redacted

LOCAL_SECONDS = 120.0
"""Time limit in seconds for a command without network access. Reading ten thousand blobs takes a second or two."""

_LAST_WORDS = 500
_SHORTEST_SECRET = 4  # a shorter secret would match parts of ordinary words

_SAFE_CONFIG = (
    "protocol.ext.allow=never",
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.askPass=",
    "credential.interactive=false",
    "fetch.recurseSubmodules=false",
    "maintenance.auto=false",
    "gc.auto=0",
    "core.fsync=committed,reference",  # a ref left empty by a power failure is a damaged mirror
)
_INHERITED = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_SHALLOW_FILE",
    "GIT_REPLACE_REF_BASE",
    "GIT_EXEC_PATH",
)

_NOTHING_ELSE = Environment({}, ())


class TimedOut(GitError):
    """A command was killed at its time limit."""

    reason = "timeout"


class Failed(GitError):
    """A command failed. The message is the end of its output; `stderr` is all of its standard error."""

    def __init__(self, message: str, stderr: str = "") -> None:
        super().__init__(message)
        self.stderr = stderr


class Interrupted(GitError):
    """A command was stopped by `interrupt`."""


def given_up() -> Interrupted:
    """Return the error of a command that was interrupted."""
    return Interrupted("given up, because the source was changed or driftwatch stops")


def forget_inherited_repository() -> None:
    """Remove variables from our environment that name another repository, for example those set for a Git hook."""
    for name in _INHERITED:
        os.environ.pop(name, None)


class GitRunner:
    """Runs git on one mirror, one command at a time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._child = OneAtATime(given_up)
        self._running: git.Git.AutoInterrupt | None = None
        self._environment: dict[str, str] | None = None

    def run(
        self,
        arguments: Sequence[str],
        *,
        timeout: float = LOCAL_SECONDS,
        stdin: bytes | None = None,
        environment: Environment = _NOTHING_ELSE,
    ) -> bytes:
        """Return the output of `git ARGUMENTS`. `timeout` is in seconds.

        Raises `Failed`, `TimedOut`, `Interrupted`, and `GitError` when git is not installed.
        """
        command = ["git", f"--git-dir={self.directory}"]
        for setting in _SAFE_CONFIG:
            command += ["-c", setting]
        name = f"git {arguments[0]}"
        return self.run_program([*command, *arguments], name, timeout=timeout, stdin=stdin, environment=environment)

    def run_program(
        self,
        command: Sequence[str],
        name: str,
        *,
        timeout: float = LOCAL_SECONDS,
        stdin: bytes | None = None,
        environment: Environment = _NOTHING_ELSE,
    ) -> bytes:
        """Return the output of any program, named `name` in errors, under the same rules as git."""
        if self._environment is None:
            self._environment = _environment()
        variables = {**self._environment, **environment.variables}
        running = self._child.start(lambda: self._begin(command, variables, stdin is not None))
        try:
            done, timed_out = finish(running, timeout, stdin)
        finally:
            self._child.ended()
            self._running = None
        self._child.check()
        if timed_out:
            raise TimedOut(f"{name} did not answer within {timeout:g} s and was ended")
        if done.status != 0:
            stderr = _redact(environment.secrets, redacted(done.errors.decode("utf-8", "replace")))
            raise Failed(_last_words(stderr) or _how_it_ended(name, done.status), stderr)
        return done.output

    def interrupt(self) -> None:
        """Stop the running command and refuse further ones."""
        self._child.interrupt()

    def _begin(
        self, command: Sequence[str], environment: Mapping[str, str], with_input: bool
    ) -> subprocess.Popen[bytes]:
        try:
            # GitPython kills the process when this object is deleted, so it is held until the command ends.
            self._running = git.Git(str(self.directory.parent)).execute(
                command,
                as_process=True,
                istream=subprocess.PIPE if with_input else None,
                env=environment,
                process_group=0,
            )
        except git.GitCommandNotFound as error:
            raise GitError(f"the program `{command[0]}` was not found on PATH; install it") from error
        running = self._running.proc
        assert running is not None  # noqa: S101  its constructor sets it
        return running


def _environment() -> dict[str, str]:
    """Build the extra environment for git.

    The user's configuration stays in effect: it holds credential helpers, proxies and certificates. The system's
    configuration is skipped unless the user enables it. All prompts are disabled, because nobody could answer.
    """
    environment = {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "",
        "SSH_ASKPASS": "",
        "GCM_INTERACTIVE": "never",
        "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
        "GIT_CONFIG_NOSYSTEM": os.environ.get("GIT_CONFIG_NOSYSTEM", "1"),
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "LC_ALL": "C",  # its messages are parsed
        "LANGUAGE": "",
    }
    if not os.environ.get("GIT_SSH_COMMAND") and not os.environ.get("GIT_SSH") and not _configured_ssh(environment):
        environment["GIT_SSH_COMMAND"] = SSH
    return environment


def _configured_ssh(environment: dict[str, str]) -> bool:
    """Whether the user's Git configuration sets an ssh command, which the variable would override."""
    try:
        status, _, _ = git.Git("/").execute(
            ["git", "config", "--global", "--get", "core.sshCommand"],
            with_exceptions=False,
            with_extended_output=True,
            env=environment,
        )
    except git.GitCommandNotFound:
        return False  # a missing git is reported when git is started
    return status == 0


def _last_words(stderr: str) -> str:
    lines = ["".join(c if c.isprintable() else " " for c in line).strip() for line in stderr.splitlines()]
    kept = [line for line in lines if line and not line.startswith(("hint:", "warning:", "Cloning into", "From "))]
    words = "; ".join(kept[-4:])
    return words if len(words) <= _LAST_WORDS else "…" + words[-_LAST_WORDS:]


def _how_it_ended(name: str, status: int) -> str:
    return f"{name} was ended by signal {-status}" if status < 0 else f"{name} ended with status {status}"


def _redact(secrets: Sequence[str], text: str) -> str:
    """The text with every secret replaced, in case a remote or proxy echoes what it was sent."""
    for secret in secrets:
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "***")
    return text
