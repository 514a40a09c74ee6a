"""What each refusal of the API server means: wait for an event, try again, or give up until something changes."""

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
    """What to do about a refusal."""

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
    """Tell what a refusal means for the object, from code, reason and causes (API conventions, "HTTP Status codes")."""
    if not isinstance(error, ApiError):
        return Outcome.RETRY
    if error.has_cause("NamespaceTerminating"):
        return Outcome.NAMESPACE_TERMINATING
    if error.code == NOT_FOUND:
        return _not_found(error)
    if error.code in (FORBIDDEN, 405) and _TERMINATING_CRD in error.message:
        return Outcome.KIND_MISSING
    # The server's words for a manifest that its schema refuses arrive as a server error; no retry mends a manifest.
    bad_manifest = any(words in error.message for words in _BAD_MANIFEST)
    no_room = error.code == FORBIDDEN and _QUOTA in error.message  # whatever makes room tells nobody
    if error.code in _RETRIED or no_room or (error.code >= SERVER_ERROR and not bad_manifest):
        return Outcome.RETRY
    return Outcome.IMMUTABLE if isinstance(error, ImmutableField) else Outcome.FAILED


def _not_found(error: ApiError) -> Outcome:
    """A kind that is not served is a path that is not there, and no object is named.

    So looks a 404 of a proxy, or of an aggregated API about one object: whether the kind is missing, discovery says.
    """
    if error.details.kind == "namespaces":
        return Outcome.NAMESPACE_MISSING
    return Outcome.GONE if error.details.name else Outcome.KIND_MISSING


def is_denied(error: ClusterError) -> bool:
    """Whether the API server's authorizer refused; its words for it are `User "x" cannot patch resource "y"`."""
    return isinstance(error, ApiError) and error.code == FORBIDDEN and _DENIED in error.message


def is_overload(error: ClusterError) -> bool:
    """Whether the API server says that it has too much to do as a whole."""
    return isinstance(error, ApiError) and _is_about_everything(error)


def is_failure(error: ClusterError) -> bool:
    """Whether the API server failed, or gave no answer: on this object alone, for all that one such answer says."""
    if not isinstance(error, ApiError):
        return isinstance(error, Unreachable)
    about_object = any(words in error.message for words in (*_BAD_MANIFEST, _WEBHOOK))
    return error.code >= SERVER_ERROR and not about_object


def pause_of(error: ClusterError) -> float:
    """Seconds for which the API server wants nothing at all from us; what it asks for one object is another matter."""
    return error.retry_after if isinstance(error, ApiError) and _is_about_everything(error) else 0.0


def _is_about_everything(error: ApiError) -> bool:
    """Whether it was answered before anything was known of the object.

    Priority and fairness, the limits on requests in flight, and what stands in front of an API server answer in plain
    text, and a 5xx of those that speak for everything says when to come again: one without is an aggregated API whose
    server is away, or a proxy that has given up on this request. A Status of 429 or 503 comes from a webhook, or is
    about one kind whose storage comes or goes.
    """
    asks = error.code == TOO_MANY_REQUESTS or (error.code >= SERVER_ERROR and error.retry_after > 0.0)
    return asks and not error.is_status
