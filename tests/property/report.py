"""What the daemon says of a single edit, compared with what the edit did."""

import time

from tests.property import oracle
from tests.property.edits import CONTROLLERS, PEOPLE, SPOOF, Done, Edit, Verb
from tests.property.world import World, at
from tests.support.strategies import DIGEST, GONE, IDENTITY, SOURCE, Manifest, written

NAMED = 5  # fields that one line names
READ_TIMEOUT = 0.15  # seconds without a word after which the daemon has said all that it has to say


def check_report(world: World, edit: Edit) -> None:
    """Do one edit of fields, wait for what comes of it, and compare what is said of it."""
    if edit.manager == SPOOF:
        edit = edit._replace(manager=PEOPLE[0])
    _wait_silent(world)
    manifest = world.manifests[edit.target]
    world.log.mark()
    done = world.do(edit)
    world.wait_quiet()
    _wait_silent(world)
    lines = world.log.lines(event="drift healed", name=manifest["metadata"]["name"])
    lines = [line for line in lines if line["namespace"] == manifest["metadata"]["namespace"]]
    evidence = f"{world.history[-1]}\nGit: {manifest}\n{lines}"
    if done.code >= 300:
        assert not lines, evidence
        return
    world.tally["edits whose report was compared"] += 1
    said = {line["type"]: line for line in lines}
    assert len(said) == len(lines), evidence
    if at(done.after, SOURCE) is GONE:
        assert said["modified"]["fields"].startswith(f"{written(SOURCE)}: "), evidence
        return
    changed = _changed(world, edit, done)
    # `1000` by force for `1k` takes the field and not its value; that may be said or not.
    if changed or edit.verb is not Verb.APPLY_FORCE:
        _compare(said.get("modified"), {written(path) for path in changed}, evidence)
    added = _added(manifest, done.after) if edit.manager not in CONTROLLERS else set()
    if edit.changes in world.kinds[edit.target].swaps:  # what excludes Git's own field is mended with it
        return
    _compare(said.get("added"), added, evidence)
    if changed:
        is_set = any(at(done.after, path) is not GONE for path in changed)
        # A removal takes the field from everybody who owned it, which looks like a write of theirs in the same second.
        shared = set().union(*(oracle.owners(done.before, written(path)) for path in changed))
        assert said["modified"]["manager"] in {edit.manager, *(() if is_set else (*shared, "unknown"))}, evidence
    if added:
        assert said["added"]["manager"] == edit.manager, evidence


def _changed(world: World, edit: Edit, done: Done) -> set:
    changed = world.kinds[edit.target].differences(world.manifests[edit.target], done.after)
    return changed | {path for path in (SOURCE, IDENTITY, DIGEST) if at(done.before, path) != at(done.after, path)}


def _added(manifest: Manifest, after: Manifest) -> set[str]:
    paths = {path for _, path in oracle.undeclared(manifest, after)}
    topmost = {path for path in paths if not any(path[:length] in paths for length in range(1, len(path)))}
    return {oracle.text(path) for path in topmost}


def _compare(line: dict | None, expected: set[str], evidence: str) -> None:
    if line is None:
        assert not expected, f"nothing was said of {expected}\n{evidence}"
        return
    named = {part.partition(": ")[0] for part in line["fields"].split("; ")}
    # Of a map that is gone itself, its keys need not be named.
    expected = {next((name for name in named if path.startswith(f"{name}.")), path) for path in expected}
    if len(expected) > NAMED:
        assert len([name for name in named if name in expected]) == NAMED, f"expected {expected}\n{evidence}"
    else:
        assert named == expected, f"expected {expected}\n{evidence}"


def _wait_silent(world: World) -> None:
    size, since = world.log.size, time.monotonic()
    while time.monotonic() - since < READ_TIMEOUT:
        time.sleep(0.02)
        if world.log.size != size:
            size, since = world.log.size, time.monotonic()
