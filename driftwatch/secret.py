"""Secrets by where they are: in a file or an environment variable, never in the configuration file.

They are read anew each time that they are needed, so that one that was rotated needs no restart, and they are held
for no longer than that. An error names the place and never the value.
"""

import os
from pathlib import Path

import msgspec

MAX_BYTES = 64 * 1024
"""Longest secret: a token has tens of bytes, and a file that was named by mistake may be of any size."""


class SecretUnavailable(Exception):
    """A secret is not where it should be; the message says where, and what to do."""


class SecretRef(msgspec.Struct, frozen=True):
    """Where a secret is: in the file `file`, or in the environment variable `variable`; with neither there is none."""

    file: str = ""
    variable: str = ""

    def __bool__(self) -> bool:
        return bool(self.file or self.variable)

    def read(self, what: str) -> str:
        """Return the secret, without the line break that editors put at a file's end.

        `what` names it in errors. Raises `SecretUnavailable` when it is missing, empty, or more than one line.
        """
        where = f"{what}: file {self.file}" if self.file else f"{what}: environment variable {self.variable}"
        value = (self._from_file(where) if self.file else os.environ.get(self.variable, "")).rstrip("\r\n")
        if not value:
            raise SecretUnavailable(f"{where} is {'empty' if self.file else 'not set'}")
        if any(character in value for character in "\r\n\0"):
            raise SecretUnavailable(f"{where} holds more than one line")
        return value

    def _from_file(self, where: str) -> str:
        try:
            with Path(self.file).open("rb") as file:
                content = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise SecretUnavailable(f"{where} cannot be read: {error.strerror}") from error
        if len(content) > MAX_BYTES:
            raise SecretUnavailable(f"{where} has more than {MAX_BYTES} bytes, so it is no secret")
        try:
            return content.decode()
        except UnicodeDecodeError:
            raise SecretUnavailable(f"{where} is not UTF-8 text") from None
