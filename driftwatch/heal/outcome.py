"""What each refusal of the API server means: wait for an event, try again, or give up until something changes."""

from enum import StrEnum

from driftwatch.cluster.errors import FORBIDDEN, NOT_FOUND, ApiError, ClusterError, ImmutableField


class Outcome(StrEnum):
    """What to do about a refusal."""

    RETRY = "retry"
    NAMESPACE_TERMINATING = "namespace terminating"
    NAMESPACE_MISSING = "namespace missing"
    KIND_MISSING = "kind missing"
    IMMUTABLE = "immutable"
    FAILED = "failed"


_BAD_MANIFEST = ("failed to create typed patch object", "failed to convert new object")
_QUOTA = "exceeded quota"
_TERMINATING_CRD = "custom resource definition is terminating"
_RETRIED = {401, 408, 409, 429}


def classify(error: ClusterError) -> Outcome:
    """Tell a refusal's meaning from its code, reason and causes (API conventions, "HTTP Status codes")."""
    if not isinstance(error, ApiError):
        return Outcome.RETRY
    if error.has_cause("NamespaceTerminating"):
        return Outcome.NAMESPACE_TERMINATING
    if error.code == NOT_FOUND:
        return Outcome.NAMESPACE_MISSING if error.details.kind == "namespaces" else Outcome.KIND_MISSING
    if error.code in (FORBIDDEN, 405) and _TERMINATING_CRD in error.message:
        return Outcome.KIND_MISSING
    # The server's words for a manifest that its schema refuses arrive as a server error; no retry mends a manifest.
    bad_manifest = any(words in error.message for words in _BAD_MANIFEST)
    no_room = error.code == FORBIDDEN and _QUOTA in error.message  # whatever makes room tells nobody
    if error.code in _RETRIED or no_room or (error.code >= 500 and not bad_manifest):  # noqa: PLR2004
        return Outcome.RETRY
    return Outcome.IMMUTABLE if isinstance(error, ImmutableField) else Outcome.FAILED
