"""Classifies errors of the API server: wait for an event, retry, or fail until the manifest or object changes."""

from enum import StrEnum

from driftwatch.cluster.errors import (
    FORBIDDEN,
    NOT_FOUND,
    SERVER_ERROR,
    TOO_MANY_REQUESTS,
    ApiError,
    ClusterError,
    ImmutableField,
    Unreachable,
)


class Outcome(StrEnum):
    """The class of an apply error."""

    RETRY = "retry"
    NAMESPACE_TERMINATING = "namespace_terminating"
    NAMESPACE_MISSING = "namespace_missing"
    KIND_MISSING = "kind_missing"
    GONE = "gone"
    IMMUTABLE = "immutable"
    FAILED = "failed"


_BAD_MANIFEST = ("failed to create typed patch object", "failed to convert new object")
_QUOTA = "exceeded quota"
_TERMINATING_CRD = "custom resource definition is terminating"
_RETRIED = {401, 408, 409, 429}
_WEBHOOK = "webhook"
_DENIED = '" cannot '


def classify(error: ClusterError) -> Outcome:
    """Classify an apply error by code, reason and causes (API conventions, "HTTP Status codes")."""
    if not isinstance(error, ApiError):
        return Outcome.RETRY
    if error.has_cause("NamespaceTerminating"):
        return Outcome.NAMESPACE_TERMINATING
    if error.code == NOT_FOUND:
        return _not_found(error)
    if error.code in (FORBIDDEN, 405) and _TERMINATING_CRD in error.message:
        return Outcome.KIND_MISSING
    # A manifest that violates its schema is answered with a server error. A retry cannot fix the manifest.
    bad_manifest = any(words in error.message for words in _BAD_MANIFEST)
    no_room = error.code == FORBIDDEN and _QUOTA in error.message  # no event announces free quota
    if error.code in _RETRIED or no_room or (error.code >= SERVER_ERROR and not bad_manifest):
        return Outcome.RETRY
    return Outcome.IMMUTABLE if isinstance(error, ImmutableField) else Outcome.FAILED


def _not_found(error: ApiError) -> Outcome:
    """Classify a 404. If the kind is not served, the path does not exist and the Status names no object.

    A 404 from a proxy, or from an aggregated API about one object, looks the same. Discovery shows whether the kind is
    missing.
    """
    if error.details.kind == "namespaces":
        return Outcome.NAMESPACE_MISSING
    return Outcome.GONE if error.details.name else Outcome.KIND_MISSING


def is_denied(error: ClusterError) -> bool:
    """Whether the API server's authorizer refused. Its message is `User "x" cannot patch resource "y"`."""
    return isinstance(error, ApiError) and error.code == FORBIDDEN and _DENIED in error.message


def is_overload(error: ClusterError) -> bool:
    """Whether the API server reports that it is overloaded as a whole."""
    return isinstance(error, ApiError) and _is_about_everything(error)


def is_failure(error: ClusterError) -> bool:
    """Whether the API server failed or gave no answer. One such error may concern this object alone."""
    if not isinstance(error, ApiError):
        return isinstance(error, Unreachable)
    about_object = any(words in error.message for words in (*_BAD_MANIFEST, _WEBHOOK))
    return error.code >= SERVER_ERROR and not about_object


def pause_of(error: ClusterError) -> float:
    """Seconds for which the API server wants no requests at all. A `Retry-After` for one object does not count."""
    return error.retry_after if isinstance(error, ApiError) and _is_about_everything(error) else 0.0


def _is_about_everything(error: ApiError) -> bool:
    """Whether the error was sent before the server looked at the object, so that it concerns all requests.

    API Priority and Fairness, the limits on requests in flight, and proxies in front of an API server answer in plain
    text. A 5xx that concerns all requests has a `Retry-After`. A 5xx without it comes from an aggregated API whose
    server is away, or from a proxy that has given up on this request. A Status of 429 or 503 comes from a webhook, or
    concerns one kind whose storage is being added or removed.
    """
    asks = error.code == TOO_MANY_REQUESTS or (error.code >= SERVER_ERROR and error.retry_after > 0.0)
    return asks and not error.is_status
