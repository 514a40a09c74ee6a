"""Exceptions for failed requests to the API server.

The tree:

    ClusterError            any failed request
    ├── CredentialsError    no usable kubeconfig, context or in-cluster token: retrying does not help
    ├── Unreachable         no answer: refused, reset, timed out, TLS
    ├── Unreadable          a success answer that contains no object
    └── ApiError            the API server answered with a failure Status
        └── ImmutableField  the declared object is valid, but the live object cannot be changed into it
"""

from typing import Any

import msgspec

# HTTP status codes that decide the next action (API conventions, "HTTP Status codes").
BAD_REQUEST = 400
UNAUTHORIZED = 401
FORBIDDEN = 403
NOT_FOUND = 404
CONFLICT = 409
GONE = 410
UNPROCESSABLE = 422
TOO_MANY_REQUESTS = 429
SERVER_ERROR = 500  # and above


class ClusterError(Exception):
    """Base class: a request to the cluster failed."""


class CredentialsError(ClusterError):
    """The configuration gives no usable address or credentials for the cluster."""


class Unreachable(ClusterError):
    """The API server gave no answer. `silent` is True if a read timed out."""

    def __init__(self, message: str, *, silent: bool = False) -> None:
        super().__init__(message)
        self.silent = silent


class Unreadable(ClusterError):
    """The answer has a success code but contains no object. A proxy on the way probably generated it."""


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
    """A `Status` object (API conventions, "Response Status Kind"). `kind` is "" if the answer was not a Status."""

    code: int = 0
    reason: str = ""
    message: str = ""
    details: _Details = _Details()
    kind: str = ""


class ApiError(ClusterError):
    """The API server rejected the request.

    Carries the HTTP code, the reason and message of its Status, and `retry_after`: the seconds to wait, from the
    Retry-After header or `details.retryAfterSeconds`, 0.0 if neither is set.
    """

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
        """Whether the error is transient: 429, or 500 and above."""
        return self.code == TOO_MANY_REQUESTS or self.code >= SERVER_ERROR

    def has_cause(self, reason: str) -> bool:
        """Whether one of the Status's causes has this reason."""
        return any(cause.reason == reason for cause in self.details.causes)

    def fields_with(self, words: str) -> list[str]:
        """Return the fields of the causes whose message contains `words`."""
        return [cause.field for cause in self.details.causes if words in cause.message]

    def __str__(self) -> str:
        return f"{self.message} (HTTP {self.code}{' ' + self.reason if self.reason else ''})"


class ImmutableField(ApiError):
    """The API server rejects the update because a field is immutable. It would accept a create."""

    def __init__(self, refusal: ApiError) -> None:
        super().__init__(refusal.code, Status(refusal.code, refusal.reason, refusal.message, refusal.details))


_decode_status = msgspec.json.Decoder(Status).decode


def api_error(code: int, body: bytes, headers: Any) -> ApiError:
    """Build the `ApiError` for an answer. Of a body that is not a Status (a proxy's page), it quotes 200 bytes."""
    try:
        retry_after = float(headers.get("Retry-After", 0))
    except ValueError:  # an HTTP date; API servers send seconds
        retry_after = 0.0
    try:
        status = _decode_status(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        status = Status(code=code, message=body[:200].decode("utf-8", "replace").strip())
    return ApiError(code, status, retry_after)
