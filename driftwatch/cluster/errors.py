"""What the API server, or the way to it, says when it does not do what was asked.

The tree:

    ClusterError            anything between us and a good answer
    ├── CredentialsError    no usable kubeconfig, context or in-cluster token: waiting does not help
    ├── Unreachable         no answer: refused, reset, timed out, TLS
    ├── Unreadable          an answer that says it is good, and is no object
    └── ApiError            the API server answered with a Status of failure
        └── ImmutableField  it would create the object as it is declared, and does not change it into that
"""

from typing import Any

import msgspec

# The codes of the API conventions, "HTTP Status codes", that decide what is done next.
BAD_REQUEST = 400
UNAUTHORIZED = 401
FORBIDDEN = 403
NOT_FOUND = 404
CONFLICT = 409
GONE = 410
UNPROCESSABLE = 422
TOO_MANY_REQUESTS = 429
SERVER_ERROR = 500  # and all that is above


class ClusterError(Exception):
    """No good answer from the cluster."""


class CredentialsError(ClusterError):
    """The cluster's address or credentials cannot be had from the configuration."""


class Unreachable(ClusterError):
    """The API server gave no answer; `silent`: nothing came for so long that nothing more was waited for."""

    def __init__(self, message: str, *, silent: bool = False) -> None:
        super().__init__(message)
        self.silent = silent


class Unreadable(ClusterError):
    """The answer says that it is good, and is no object: something on the way has made it up."""


class _Cause(msgspec.Struct, frozen=True):
    reason: str = ""
    message: str = ""
    field: str = ""


class _Details(msgspec.Struct, frozen=True):
    name: str = ""
    group: str = ""
    kind: str = ""
    causes: list[_Cause] = []
    retryAfterSeconds: float = 0  # noqa: N815  the API's name


class Status(msgspec.Struct, frozen=True):
    """A `Status` object of the API server (API conventions, "Response Status Kind"); `kind` is "" for other answers."""

    code: int = 0
    reason: str = ""
    message: str = ""
    details: _Details = _Details()
    kind: str = ""


class ApiError(ClusterError):
    """The API server refused: its HTTP code, reason, own words, and how long it asks us to wait (seconds)."""

    def __init__(self, code: int, status: Status, retry_after: float = 0.0) -> None:
        super().__init__(status.message or f"HTTP {code}")
        self.code = code
        self.reason = status.reason
        self.is_status = status.kind == "Status" or bool(status.reason)
        self.message = status.message or f"HTTP {code}"
        self.details = status.details
        self.retry_after = max(retry_after, status.details.retryAfterSeconds)

    @property
    def passes(self) -> bool:
        """Whether the API server may answer better by itself: it is overloaded, or something of it fails."""
        return self.code == TOO_MANY_REQUESTS or self.code >= SERVER_ERROR

    def has_cause(self, reason: str) -> bool:
        """Whether a cause of the refusal carries this reason."""
        return any(cause.reason == reason for cause in self.details.causes)

    def fields_with(self, words: str) -> list[str]:
        """The fields that a cause of the refusal names with these words."""
        return [cause.field for cause in self.details.causes if words in cause.message]

    def __str__(self) -> str:
        return f"{self.message} (HTTP {self.code}{' ' + self.reason if self.reason else ''})"


class ImmutableField(ApiError):
    """The API server refuses to change an object into what it would create."""

    def __init__(self, refusal: ApiError) -> None:
        super().__init__(refusal.code, Status(refusal.code, refusal.reason, refusal.message, refusal.details))


_decode_status = msgspec.json.Decoder(Status).decode


def api_error(code: int, body: bytes, headers: Any) -> ApiError:
    """The `ApiError` for an answer; a body that is no Status (a proxy's page) is quoted, shortened."""
    try:
        retry_after = float(headers.get("Retry-After", 0))
    except ValueError:  # an HTTP date: no API server sends one
        retry_after = 0.0
    try:
        status = _decode_status(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        status = Status(code=code, message=body[:200].decode("utf-8", "replace").strip())
    return ApiError(code, status, retry_after)
