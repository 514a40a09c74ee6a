"""Verbs of API requests for metrics: Kubernetes' own verbs, and `dry_run`."""

from collections.abc import Callable, Mapping
from enum import StrEnum

import yarl


class Verb(StrEnum):
    """Verb of a request. `dry_run` is any write with `dryRun=All`."""

    APPLY = "apply"
    CREATE = "create"
    DELETE = "delete"
    DRY_RUN = "dry_run"
    GET = "get"
    LIST = "list"
    PATCH = "patch"
    UPDATE = "update"
    WATCH = "watch"


Observer = Callable[[Verb, int, float], None]
"""Callback for each finished request: verb, HTTP code (0 without an answer) and seconds."""

_VERBS = {"DELETE": Verb.DELETE, "POST": Verb.CREATE, "PUT": Verb.UPDATE, "PATCH": Verb.PATCH}
_APPLY = "application/apply-patch"


def verb_of(method: str, url: yarl.URL, headers: Mapping[str, str]) -> Verb:
    """Return the verb of a request, from its method, query and content type."""
    query = url.raw_query_string
    if method == "GET":
        return Verb.LIST if "limit=" in query else Verb.GET
    if "dryRun=" in query:
        return Verb.DRY_RUN
    if headers.get("Content-Type", "").startswith(_APPLY):
        return Verb.APPLY
    return _VERBS.get(method, Verb.GET)
