"""Verifies GPG and SSH signatures of commits and tags, against the source's keys only.

Git decides, by the exit status of `verify-commit` and `verify-tag`; its output only explains the result. Each check
uses a new keyring, made from the source's file, so neither the user's keys nor the user's configuration can make a
signature valid. A tag is accepted only under the name in its signed content: an old signed tag under a new name is
rejected.
"""

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from driftwatch.git.credentials import Environment
from driftwatch.git.errors import SignatureRefused
from driftwatch.git.runner import Failed, GitRunner
from driftwatch.source_spec import SourceSpec, VerifyMode

_NO_SIGNERS = "/dev/null"
_SIGNED = re.compile(rb"^-----BEGIN (PGP|SSH) SIGNATURE-----", re.MULTILINE)
_SIGNED_COMMIT = re.compile(rb"^gpgsig(-sha256)? ", re.MULTILINE)
_SSH_KEY = re.compile(r'Good "git" signature with (\S+ key \S+)')

# gpg's --status-fd keywords and their meaning here; the first match counts.
_GPG_STATUS = (
    (r"\[GNUPG:\] BADSIG", "its signature is wrong: what was signed was something else"),
    (r"\[GNUPG:\] REVKEYSIG (\w+)", "its key {} was revoked"),
    (r"\[GNUPG:\] EXPKEYSIG (\w+)", "its key {} has expired"),
    (r"\[GNUPG:\] EXPSIG (\w+)", "its signature by key {} has expired"),
    (r"\[GNUPG:\] (?:NO_PUBKEY|ERRSIG) (\w+)", "its key {} is not among those of {keys}"),
)


class Signatures:
    """Verifies the commit or tag at a source's revision against the source's keys."""

    def __init__(self, spec: SourceSpec, runner: GitRunner) -> None:
        self._wanted = spec.verification
        self._runner = runner

    @property
    def required(self) -> bool:
        """Whether the source requires a signature."""
        return self._wanted is not None

    def check(self, commit: str, named: str, ref: str) -> None:
        """Raise `SignatureRefused` unless every required signature is by one of the keys.

        `named` is the object that the remote's `ref` names: an annotated tag, or the commit itself.
        """
        wanted = self._wanted
        if wanted is None:
            return
        with self._keyring() as environment:
            if wanted.mode in (VerifyMode.TAG, VerifyMode.TAG_AND_HEAD):
                self._check_tag(named, ref, environment)
            if wanted.mode in (VerifyMode.HEAD, VerifyMode.TAG_AND_HEAD):
                self._check_commit(commit, environment)

    def _check_commit(self, commit: str, environment: Environment) -> None:
        header = self._runner.run(["cat-file", "commit", commit]).partition(b"\n\n")[0]
        what = f"commit {commit[:12]}"
        if not _SIGNED_COMMIT.search(header):
            raise SignatureRefused(f"{what} is refused: it is not signed")
        self._verify("verify-commit", commit, what, environment)

    def _check_tag(self, named: str, ref: str, environment: Environment) -> None:
        name = ref.removeprefix("refs/tags/")
        if name == ref:
            raise SignatureRefused("verify.mode wants a signed tag, and the revision is no tag")
        what = f"tag {name}"
        if self._runner.run(["cat-file", "-t", named]).strip() != b"tag":
            raise SignatureRefused(f"{what} is refused: it is not annotated, so nobody can have signed it")
        content = self._runner.run(["cat-file", "tag", named])
        if f"tag {name}".encode() not in content.partition(b"\n\n")[0].split(b"\n"):
            raise SignatureRefused(f"{what} is refused: the tag object is one of another name")
        if not _SIGNED.search(content):
            raise SignatureRefused(f"{what} is refused: it is not signed")
        self._verify("verify-tag", named, what, environment)

    def _verify(self, command: str, name: str, what: str, environment: Environment) -> None:
        try:
            self._runner.run([command, "--raw", name], environment=environment)
        except Failed as error:
            raise SignatureRefused(f"{what} is refused: {self._explain(error)}") from error

    def _explain(self, error: Failed) -> str:
        assert self._wanted is not None  # noqa: S101  nothing is verified otherwise
        for pattern, meaning in _GPG_STATUS:
            if match := re.search(pattern, error.stderr):
                keys = self._wanted.gpg_keys_file or "verify.gpgKeysFile, which is not set"
                return meaning.format(*match.groups(), keys=keys)
        if match := _SSH_KEY.search(error.stderr):
            signers = self._wanted.ssh_allowed_signers_file or "verify.sshAllowedSignersFile, which is not set"
            return f"its {match[1]} is not among those of {signers}, or was not valid at the time of the commit"
        if re.search(r"could not verify signature|incorrect signature", error.stderr, re.IGNORECASE):
            return "its signature is wrong: what was signed was something else"
        return f"its signature cannot be verified: {error}"

    @contextlib.contextmanager
    def _keyring(self) -> Iterator[Environment]:
        """Yield an environment in which git knows only the source's keys. The keyring is removed afterwards."""
        assert self._wanted is not None  # noqa: S101  nothing is verified otherwise
        home = tempfile.mkdtemp(prefix="driftwatch-keys-")  # mkdtemp makes it readable by its owner only
        try:
            signers = self._wanted.ssh_allowed_signers_file
            settings = {
                "gpg.program": "gpg",
                "gpg.openpgp.program": "gpg",
                "gpg.x509.program": "false",
                "gpg.ssh.program": "ssh-keygen",
                "gpg.ssh.allowedSignersFile": _existing(signers, "verify.sshAllowedSignersFile") or _NO_SIGNERS,
                "gpg.minTrustLevel": "undefined",
            }
            variables = {"GNUPGHOME": home, "GIT_CONFIG_COUNT": str(len(settings))}
            for number, (key, value) in enumerate(settings.items()):
                variables |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
            environment = Environment(variables, ())
            self._import_keys(home, environment)
            yield environment
        finally:
            shutil.rmtree(home, ignore_errors=True)

    def _import_keys(self, home: str, environment: Environment) -> None:
        keys = _existing(self._wanted.gpg_keys_file if self._wanted else "", "verify.gpgKeysFile")
        if not keys:
            return
        options = ["--batch", "--no-tty", "--no-options", "--no-autostart", "--homedir", home]
        try:
            self._runner.run_program(["gpg", *options, "--quiet", "--import", keys], "gpg", environment=environment)
        except Failed as error:
            raise SignatureRefused(
                f"verify.gpgKeysFile: {keys} holds no public keys that gpg takes: {error}"
            ) from error


def _existing(file: str, what: str) -> str:
    """The file's path, or "" if none is configured. Raises `SignatureRefused` if it cannot be read."""
    if file:
        try:
            with Path(file).open("rb"):
                pass
        except OSError as error:
            message = f"{what}: file {file} cannot be read: {error.strerror}; no commit is taken without it"
            raise SignatureRefused(message) from error
    return file
