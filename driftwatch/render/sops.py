"""Decrypts SOPS-encrypted documents with the real sops, entirely in memory.

Keys come only from files that the source names; driftwatch's own environment provides none. The message
authentication code of a file is verified, except on kustomize's output, whose code cannot match any more. Flux does
the same.
"""

import contextlib
import hashlib
import re
from pathlib import Path

from driftwatch.git.errors import RenderError
from driftwatch.render.error_location import summary
from driftwatch.render.sandbox import Sandbox, ToolFailed, Workspace, program
from driftwatch.source_spec import SopsSpec

ENCRYPTED = re.compile(r"^(?:sops:|\s*\"sops\"\s*:)", re.MULTILINE)
CODE = re.compile(r"\"?mac\"?:\s*\"?(ENC\[[^\]]*\])")
_NOT_ENCRYPTED = "sops metadata not found"


class Sops:
    """Decryption for one source."""

    def __init__(self, spec: SopsSpec, sandbox: Sandbox, folder: Path, *, network: bool) -> None:
        self._spec = spec
        self._sandbox = sandbox
        self._folder = folder
        self._network = network

    def state(self) -> str:
        """A version of the keys; it changes when a file that could not be decrypted may now be."""
        facts = []
        for name in (self._spec.age_key_file, self._spec.gnupg_home):
            with contextlib.suppress(OSError):
                found = Path(name).stat() if name else None
                facts.append(str(found and (found.st_mtime_ns, found.st_size, found.st_ino)))
        return hashlib.blake2b("".join(facts).encode(), digest_size=8).hexdigest()

    def decrypt(self, text: str, *, check: bool) -> str:
        """Decrypt the text; return it unchanged if it is not encrypted. Raises `RenderError`."""
        if not (self._spec.age_key_file or self._spec.gnupg_home):
            raise RenderError("is encrypted by SOPS, and the source has no key: set sops.ageKeyFile or sops.gnupgHome")
        kind = "json" if text.lstrip().startswith("{") else "yaml"
        found = program("sops")
        command = [str(found.path), "--disable-version-check", "decrypt", f"--input-type={kind}",
                   f"--output-type={kind}", f"--filename-override=manifest.{kind}"]  # fmt: skip
        if not check:
            command.append("--ignore-mac")
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        workspace = Workspace(self._folder).create()
        try:
            output = self._sandbox.run(
                command,
                workspace,
                workspace.folder,
                network=self._network,
                programs=bool(self._spec.gnupg_home),
                variables=self._keys(),
                stdin=text.encode(),
            )
            return output.decode()
        except ToolFailed as failure:
            if _NOT_ENCRYPTED in failure.stderr:
                return text
            raise RenderError(f"cannot be decrypted: {summary(failure.stderr)}") from failure
        finally:
            self._end_agent(workspace)

    def _keys(self) -> dict[str, str]:
        keys = {}
        if self._spec.age_key_file:
            keys["SOPS_AGE_KEY_FILE"] = self._spec.age_key_file
        if self._spec.gnupg_home:
            keys["GNUPGHOME"] = self._spec.gnupg_home
        return keys

    def _end_agent(self, workspace: Workspace) -> None:
        """Stop the agent that gpg leaves running."""
        if self._spec.gnupg_home:
            with contextlib.suppress(ToolFailed, RenderError):
                self._sandbox.run(
                    ["gpgconf", "--kill", "gpg-agent"],
                    workspace,
                    workspace.folder,
                    programs=True,
                    variables=self._keys(),
                )
