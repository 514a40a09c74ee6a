"""Parses push events of Git hosts' webhooks: the changed refs and the default branch.

Pure functions. GitHub, GitLab, Gitea, Forgejo, Bitbucket Cloud and Data Center are distinguished by their JSON.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import orjson

_EVENT_HEADERS = ("X-GitHub-Event", "X-Gitlab-Event", "X-Forgejo-Event", "X-Gitea-Event", "X-Event-Key")
_PUSH_EVENTS = frozenset(
    {
        *("push", "create", "delete"),  # GitHub, Gitea, Forgejo
        *("Push Hook", "Tag Push Hook", "System Hook"),  # GitLab
        *("repo:push", "repo:refs_changed"),  # Bitbucket Cloud, Data Center
    }
)
_COMMIT = re.compile(r"[0-9a-f]{7,64}")


class Push(NamedTuple):
    """A push: full names of the changed refs, and the default branch, "" if the event does not contain it."""

    refs: tuple[str, ...]
    default_branch: str


def refs_of(headers: Mapping[str, str], content_type: str, body: bytes) -> Push | None:
    """Parse a push. Returns None for other events, such as a host's test of the webhook.

    Raises `ValueError` if the body does not match the event header.
    """
    event = next((headers[name] for name in _EVENT_HEADERS if name in headers), "")
    if event not in _PUSH_EVENTS:
        return None
    told = _json(content_type, body)
    if not isinstance(told, dict):
        raise ValueError("the body is no JSON object")  # noqa: TRY004  the input is wrong, not the argument's type
    refs = tuple(ref for ref in (_full(each) for each in _changes(told)) if ref)
    if not refs:
        raise ValueError("the body names no ref")
    return Push(refs, _default_branch(told))


def concerns(push: Push, revision: str, semver: str) -> bool:
    """Whether the push may change the commit that a source's revision resolves to."""
    if semver:
        return any(ref.startswith("refs/tags/") for ref in push.refs)
    if revision == "HEAD":
        branches = [ref for ref in push.refs if ref.startswith("refs/heads/")]
        return f"refs/heads/{push.default_branch}" in branches if push.default_branch else bool(branches)
    if _COMMIT.fullmatch(revision):
        return True  # the push may contain the commit
    names = {revision} if revision.startswith("refs/") else {f"refs/heads/{revision}", f"refs/tags/{revision}"}
    return not names.isdisjoint(push.refs)


def _json(content_type: str, body: bytes) -> Any:
    """Decode the JSON body, or the form field `payload` that GitHub can use. curl declares JSON as a form, too."""
    try:
        if content_type == "application/x-www-form-urlencoded" and body.startswith(b"payload="):
            return orjson.loads(parse_qs(body.decode(), max_num_fields=10)["payload"][0])
        return orjson.loads(body)
    except (ValueError, KeyError) as error:
        raise ValueError("the body is no JSON") from error


def _changes(told: dict[str, Any]) -> list[tuple[str, str]]:
    """Return type and name of each changed ref. The type is "" if the name is a full ref name."""
    if isinstance(told.get("ref"), str):
        return [(str(told.get("ref_type") or ""), told["ref"])]
    push = told.get("push")
    changes = push.get("changes") if isinstance(push, dict) else told.get("changes")
    found: list[tuple[str, str]] = []
    for change in changes if isinstance(changes, list) else []:
        if not isinstance(change, dict):
            continue
        for side in (change.get("new"), change.get("old"), change.get("ref")):
            if isinstance(side, dict):
                found.append((str(side.get("type") or ""), str(side.get("id") or side.get("name") or "")))
                break
    return found


def _full(change: tuple[str, str]) -> str:
    kind, name = change
    if name.startswith("refs/") or not name:
        return name
    return f"refs/tags/{name}" if kind.lower() == "tag" else f"refs/heads/{name}"


def _default_branch(told: dict[str, Any]) -> str:
    for section in ("project", "repository"):
        about = told.get(section)
        if isinstance(about, dict):
            main = about.get("mainbranch")
            branch = about.get("default_branch") or (main.get("name") if isinstance(main, dict) else None)
            if isinstance(branch, str):
                return branch
    return ""
