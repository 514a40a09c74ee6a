"""Keys that tests sign commits with: real ones, of a real gpg and a real ssh-keygen, in folders of their own."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.git_ssh import keypair


class GpgKey:
    """A key without passphrase in a keyring of its own; `options` make git sign with it."""

    def __init__(self, home: Path, user: str, *, expires: str = "0") -> None:
        self.home = home
        key = ["--passphrase", "", "--quick-generate-key", user, "ed25519", "sign", expires]
        # A key that has expired is one that was made long ago.
        past = ["--faked-system-time", "20200101T000000"] if expires != "0" else []
        self.gpg(*past, *key)
        self.fingerprint = self._fingerprint()
        self._past = past
        self.public = self.gpg("--armor", "--export")

    @property
    def options(self) -> tuple[str, ...]:
        """Options of git for signing with this key."""
        return "-c", f"user.signingKey={self.fingerprint}", "-c", f"gpg.program={self._program()}"

    def gpg(self, *arguments: str) -> bytes:
        """Output of gpg with this keyring."""
        command = ["gpg", "--homedir", str(self.home), "--batch", "--no-tty", "--yes", *arguments]
        done = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _fingerprint(self) -> str:
        listing = self.gpg("--with-colons", "--list-secret-keys").decode()
        return next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:"))

    def _program(self) -> Path:
        """A gpg with this keyring, and in the time in which the key was valid."""
        program = self.home / "gpg-with-this-keyring"
        program.write_text(f'#!/bin/sh\nexec gpg --homedir {self.home} {" ".join(self._past)} "$@"\n')
        program.chmod(0o700)
        return program


@contextmanager
def gpg_keys() -> Iterator[Path]:
    """A folder for keyrings with a path short enough for gpg's sockets; its agents end with it."""
    folder = Path(tempfile.mkdtemp(prefix="gpg-"))
    try:
        yield folder
    finally:
        for home in folder.iterdir():
            environment = {**os.environ, "GNUPGHOME": str(home)}
            subprocess.run(["gpgconf", "--kill", "all"], env=environment, check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


class SshKey:
    """A signing key; `signer` is its line in a file of allowed signers."""

    def __init__(self, file: Path, principal: str = "ann@example.com") -> None:
        keypair(file)
        self.options = ("-c", "gpg.format=ssh", "-c", f"user.signingKey={file}.pub")
        self.public = Path(f"{file}.pub").read_text().strip()
        self.signer = f"{principal} {self.public}\n"
        self._file = file
