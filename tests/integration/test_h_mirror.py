"""A mirror that is damaged anywhere is built again or refused by name, and never takes anything from the cluster."""

import io
import itertools
import shutil
from pathlib import Path

import pytest
from driftwatch.desired import process, protocol
from driftwatch.desired.protocol import Change, Fetched, FetchFailed
from driftwatch.git.repository import Repository

from tests.support.desired_origin import Origin, config_map
from tests.support.rendering import KUSTOMIZATION, Source, found

BROKEN = "a: [\n"
DAMAGES = {
    "empty": lambda _: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "garbage": lambda _: b"\x00\xffgarbage\n" * 3,
    "missing": lambda _: None,
}
IN_TURN = "in turn"
# Every kind of damage to every file takes minutes: in the fast suite each file has one kind, the next the next.
SWEEP = [IN_TURN, *(pytest.param(kind, marks=pytest.mark.slow) for kind in DAMAGES)]


class Followed:
    """A source as the desired-state process follows it, with what that says to the daemon."""

    def __init__(self, spec):
        self._frames = io.BytesIO()
        self._follower = process.Follower(spec, process.FrameWriter(self._frames))

    def begin(self):
        """Start as after a restart."""
        self._follower._first_round()
        return self._said()

    def look(self):
        """Look at the remote once more."""
        self._follower._round(20.0)
        return self._said()

    def _said(self):
        self._frames.seek(0)
        said = []
        while (payload := protocol.read_payload(self._frames)) is not None:
            said.append(protocol.decode_from_process(payload))
        self._frames.seek(0)
        self._frames.truncate()
        return said


def _damaged(files, damage):
    """Each file with the kind of damage that it gets."""
    kinds = itertools.cycle(DAMAGES) if damage == IN_TURN else itertools.repeat(damage)
    return list(zip(files, kinds, strict=False))


def _damage(file, kind):
    content = DAMAGES[kind](file.read_bytes())
    file.unlink()
    if content is not None:
        file.write_bytes(content)


def _of(said, kind):
    return [message for message in said if isinstance(message, kind)]


class Prepared:
    """A mirror with packs, loose objects, packed and loose refs, and a pinned blob, and copies of it to damage."""

    def __init__(self, folder):
        self.origin = Origin(folder / "origin")
        self.spec = self.origin.spec(folder / "mirrors")
        self.mirror = Path(self.spec.mirror)
        followed = Followed(self.spec)
        self.origin.commit({"a.yaml": config_map("a"), "kept.yaml": config_map("kept")})
        followed.begin()
        Repository(self.spec).run(["gc", "--quiet"])
        self.origin.commit({"b.yaml": config_map("b"), "kept.yaml": BROKEN})
        followed.look()
        self.good = self.origin.git("rev-parse", "HEAD")
        self._whole = folder / "whole"
        shutil.copytree(self.mirror, self._whole)

    @property
    def files(self):
        return sorted(file.relative_to(self._whole) for file in self._whole.rglob("*") if file.is_file())

    def restore(self):
        shutil.rmtree(self.mirror, ignore_errors=True)
        shutil.copytree(self._whole, self.mirror)


@pytest.fixture
def prepared(tmp_path):
    return Prepared(tmp_path)


@pytest.mark.parametrize("damage", SWEEP)
def test_h10_after_a_restart_a_mirror_that_is_damaged_anywhere_brings_new_commits(prepared, damage):
    """Each file in turn: every object that can be read is declared, the source is told to be in order, and so again."""
    new = prepared.origin.commit({"c.yaml": config_map("c")})
    failures = []
    for file, kind in _damaged(prepared.files, damage):
        prepared.restore()
        _damage(prepared.mirror / file, kind)
        said = Followed(prepared.spec).begin()
        names = {one.name for change in _of(said, Change) for one in change.upserts}
        again = Repository(prepared.spec).good()
        if not {"a", "b", "c"} <= names or _of(said, FetchFailed) or not _of(said, Fetched) or again != new:
            failures.append((str(file), kind, names, _of(said, FetchFailed)))
    assert not failures


@pytest.mark.parametrize("damage", SWEEP)
def test_h10_while_it_runs_a_mirror_that_is_damaged_anywhere_brings_new_commits(prepared, damage):
    """Each file in turn; the commit after the damage comes; a restart without the remote serves it or says why not."""
    failures = []
    away = prepared.origin.folder.with_name("away")
    for number, (file, kind) in enumerate(_damaged(prepared.files, damage)):
        prepared.restore()
        followed = Followed(prepared.spec)
        followed.begin()
        _damage(prepared.mirror / file, kind)
        prepared.origin.commit({f"new-{number}.yaml": config_map(f"new-{number}")})
        said = followed.look()
        prepared.origin.folder.rename(away)
        restarted = Followed(prepared.spec).begin()
        away.rename(prepared.origin.folder)
        served = _names(said) <= _names(restarted)
        # What nothing has read since it was damaged is found to be damaged then, and the remote is away.
        failed = _of(restarted, FetchFailed)
        refused = failed and not _names(restarted) and all("the mirror" in message.error for message in failed)
        removed = [one for change in _of(said, Change) for one in change.removed]
        if _of(said, FetchFailed) or removed or f"new-{number}" not in _names(said) or not (served or refused):
            failures.append((str(file), kind, _names(said), _names(restarted), removed, _of(said, FetchFailed), failed))
    assert not failures


def _names(said):
    return {one.name for change in _of(said, Change) for one in change.upserts}


@pytest.mark.parametrize("damage", SWEEP)
def test_h10_without_the_remote_a_damaged_mirror_serves_or_says_why_not(prepared, damage):
    """The last good commit is whole or not served at all, and what is wrong is said; then all is well again."""
    away = prepared.origin.folder.with_name("away")
    failures = []
    for file, kind in _damaged(prepared.files, damage):
        prepared.restore()
        _damage(prepared.mirror / file, kind)
        prepared.origin.folder.rename(away)
        followed = Followed(prepared.spec)
        said = followed.begin()
        away.rename(prepared.origin.folder)
        failed = _of(said, FetchFailed)
        served = _names(said) >= {"a", "b"} and all(message.serving for message in failed)
        refused = not _names(said) and all("the mirror" in message.error for message in failed)
        back = followed.look()
        well = _of(back, Fetched) and (_names(said) | _names(back)) >= {"a", "b"}
        if not failed or not (served or refused) or not well:
            failures.append((str(file), kind, _names(said), failed, _of(back, FetchFailed)))
    assert not failures


def test_h10_locks_that_a_killed_git_left_stop_nothing(prepared):
    """Beside each file, and where git makes them of itself."""
    prepared.restore()
    for file in prepared.files:
        lock = prepared.mirror / f"{file}.lock"
        lock.touch()
    (prepared.mirror / "packed-refs.lock").touch()
    prepared.origin.commit({"c.yaml": config_map("c")})
    said = Followed(prepared.spec).begin()
    assert _names(said) >= {"a", "b", "c"}
    assert not _of(said, FetchFailed)
    assert not list(prepared.mirror.rglob("*.lock"))


@pytest.mark.parametrize("left", ["old and new", "old alone", "an attempt"])
def test_h10_a_crash_while_a_new_mirror_takes_the_old_ones_place_leaves_one_to_heal_by(prepared, left):
    """Without the remote, the last good commit is served after it."""
    prepared.restore()
    new, old = (prepared.mirror.with_name(f"{prepared.mirror.name}.{name}") for name in ("new", "old"))
    if left == "an attempt":
        new.mkdir()
        (new / "HEAD").touch()
    else:
        if left == "old and new":
            shutil.copytree(prepared.mirror, new)
        prepared.mirror.rename(old)
    prepared.origin.folder.rename(prepared.origin.folder.with_name("away"))
    said = Followed(prepared.spec).begin()
    assert _names(said) >= {"a", "b", "kept"}
    assert not new.exists()
    assert not old.exists()


def test_h10_building_the_mirror_again_never_leaves_a_moment_without_one(prepared, monkeypatch):
    """The process dies when the new mirror is about to take the old one's place: the old one serves."""
    prepared.restore()
    rename = Path.rename

    def dies(self, target):
        if self.name.endswith(".new"):
            raise KeyboardInterrupt
        return rename(self, target)

    mirror = Repository(prepared.spec)
    monkeypatch.setattr(Path, "rename", dies)
    with pytest.raises(KeyboardInterrupt):
        mirror.sync(rebuild=True)
    monkeypatch.undo()
    prepared.origin.folder.rename(prepared.origin.folder.with_name("away"))
    assert _names(Followed(prepared.spec).begin()) >= {"a", "b"}


@pytest.mark.parametrize("damage", SWEEP)
def test_h10_damaged_refs_of_what_was_rendered_are_rendered_again(tmp_path, damage):
    """Each ref in turn: new commits come, and after a restart the last rendering serves."""
    source = Source(tmp_path, path="overlays/prod")
    source.commit(KUSTOMIZATION)
    mirror = Path(source.spec.mirror)
    whole = tmp_path / "whole"
    shutil.copytree(mirror, whole)
    files = sorted(each.relative_to(whole) for each in (whole / "refs").rglob("*") if each.is_file())
    for file, kind in _damaged(files, damage):
        shutil.rmtree(mirror)
        shutil.copytree(whole, mirror)
        _damage(mirror / file, kind)
        followed = Followed(source.spec)
        said = followed.begin()
        assert not _of(said, FetchFailed), (file, kind)
        assert "prod-web" in _names(said), (file, kind)
        served = Repository(source.spec)
        source.restart()
        assert "Service/prod-web" in found(source.snapshots.at(served.good(), last_rendered=True)), (file, kind)
