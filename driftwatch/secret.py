"""References to secrets in files or environment variables. The configuration file itself holds no secret.

A secret is read each time that it is needed, so a rotated one needs no restart, and it is not kept longer than that.
Errors name the location of a secret, never its value.
"""

import os
import re
from pathlib import Path

import msgspec

MAX_BYTES = 64 * 1024
"""Maximum size of a secret in bytes. A token has tens of bytes; a file named by mistake may have any size."""

_USERINFO = re.compile(r"(?<=://)(?!git@)[^/\s'\"]+@")
_TOKEN = re.compile(r"([?&][\w-]*(?:token|password|secret|key)=)[^&\s'\"]+", re.IGNORECASE)


def redacted(text: str) -> str:
    """Text without the credentials that a URL in it may carry."""
    return _TOKEN.sub(r"\1***", _USERINFO.sub("***@", text))


class SecretUnavailable(Exception):
    """A secret is missing or unusable. The message names its location and what to do."""


class SecretRef(msgspec.Struct, frozen=True):
    """Location of a secret: the file `file` or the environment variable `variable`. With neither there is no secret."""

    file: str = ""
    variable: str = ""

    def __bool__(self) -> bool:
        return bool(self.file or self.variable)

    def read(self, what: str) -> str:
        """Return the secret, without the line break that editors append to a file.

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
