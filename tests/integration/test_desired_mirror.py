"""The mirror over a long time, on a full disk, and with a repository whose author means ill."""

import io
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from driftwatch.desired import process
from driftwatch.desired.snapshot import Snapshots
from driftwatch.git.errors import DiskFull, PathNotFound, SourceError
from driftwatch.git.repository import Repository

from tests.support import disk
from tests.support.desired_origin import Origin, config_map


@pytest.fixture
def origin(tmp_path):
    origin = Origin(tmp_path / "origin")
    origin.commit({"a.yaml": config_map("a")})
    return origin


@pytest.fixture
def small_disk(tmp_path):
    with disk.small_disk(tmp_path / "disk", megabytes=3) as folder:
        yield folder


def _size(folder):
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _noise(kilobytes):
    """What no compression makes smaller, as a comment."""
    return "".join(f"# {os.urandom(512).hex()}\n" for _ in range(kilobytes)).encode()


# --- over a long time ---


def test_d07_many_fetches_do_not_make_the_mirror_grow(origin, tmp_path):
    """Every commit replaces 110 files of a kilobyte: what is kept is a bounded number of packs, and one commit."""
    mirror = Repository(origin.spec(tmp_path / "mirrors"))
    sizes = []
    for number in range(27):
        head = origin.commit({f"{file}.txt": os.urandom(1024) for file in range(110)}, str(number))
        assert mirror.sync() == head
        mirror.keep(head, {})
        mirror.tidy()
        sizes.append(_size(mirror.mirror))
    assert max(sizes[13:]) <= max(sizes[:13]) * 1.2
    packs = len(list((mirror.mirror / "objects/pack").glob("*.pack")))
    assert packs <= 11
    assert len((mirror.mirror / "shallow").read_text().splitlines()) <= 13
    assert mirror._runner.run(["for-each-ref"]).count(b"\n") == 2


def test_d07_a_look_without_news_starts_one_git_that_asks(origin, tmp_path, monkeypatch):
    """The mirror is not even opened: what it has is known."""
    calls, real = tmp_path / "calls", shutil.which("git")
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$*" >> {calls}\nexec {real} "$@"\n')
    program.chmod(0o755)
    mirror = Repository(origin.spec(tmp_path / "mirrors"))
    mirror.sync()
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    mirror.sync()
    (call,) = calls.read_text().splitlines()
    assert " ls-remote -- " in call


# --- a full disk ---


def test_d08_a_full_disk_is_said_and_the_last_good_commit_stays(origin, small_disk):
    """Nothing of the attempt is left in the way; when there is room, the next look succeeds."""
    mirror = Repository(origin.spec(small_disk))
    good = mirror.sync()
    mirror.keep(good, {})
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 2_000_000)
    head = origin.commit({"large.txt": _noise(3000)})
    for _ in range(3):
        with pytest.raises(DiskFull, match=r"free some space below state\.directory"):
            mirror.sync()
    assert not list(mirror.mirror.rglob("tmp_*"))
    assert mirror.good() == good
    assert len(list(mirror.blobs(mirror.tree(good)))) == 1
    assert Repository(mirror.spec).good() == good  # after a restart
    ballast.unlink()
    assert mirror.sync() == head


def test_d08_a_snapshot_that_could_not_be_kept_is_kept_at_the_next_look(origin, tmp_path, monkeypatch):
    """It is in force at once; that the disk was full just then must not cost it at a restart."""
    spec = origin.spec(tmp_path / "mirrors")
    follower = process.Follower(spec, process.FrameWriter(io.BytesIO()))
    keep = Repository.keep

    def full_disk(*_arguments):
        monkeypatch.setattr(Repository, "keep", keep)
        raise DiskFull("no space left on device")

    monkeypatch.setattr(Repository, "keep", full_disk)
    follower._round(20.0)
    assert follower._failures == 1
    assert Repository(spec).good() is None
    follower._round(20.0)
    assert follower._failures == 0
    assert Repository(spec).good() == origin.git("rev-parse", "HEAD")


# --- a hostile repository ---


def _evil(origin, *entries):
    """Make a commit whose tree has these entries, which no work tree could give it."""
    raw = b"".join(f"{mode} {name}".encode() + b"\0" + bytes.fromhex(object_id) for mode, name, object_id in entries)
    write = ["git", "-C", origin.folder, "hash-object", "-t", "tree", "-w", "--stdin", "--literally"]
    done = subprocess.run(write, input=raw, capture_output=True, check=True)
    commit = origin.git("commit-tree", done.stdout.decode().strip(), "-m", "evil")
    origin.git("update-ref", "refs/heads/main", commit)
    return commit


def test_d12_paths_that_lead_out_of_the_tree_are_names_and_nothing_else(origin, tmp_path):
    """A folder `..`, a folder `.git`, a link to /etc, a name with a slash: passed over, and nothing is written."""
    blob = origin.git("hash-object", "-w", "--stdin", stdin=config_map("evil"))
    link = origin.git("hash-object", "-w", "--stdin", stdin="/etc/passwd")
    inner = origin.git("mktree", stdin=f"100644 blob {blob}\tescaped.yaml\n")
    _evil(
        origin, ("40000", "..", inner), ("40000", ".git", inner), ("100644", "good.yaml", blob),
        ("120000", "passwd.yaml", link), ("160000", "sub", "1" * 40),
    )  # fmt: skip
    spec = origin.spec(tmp_path / "mirrors")
    mirror = Repository(spec)
    snapshots = Snapshots(spec, mirror)
    change = snapshots.at(mirror.sync())
    assert [(one.name, one.file) for one in change.upserts] == [("evil", "good.yaml")]
    assert {one.file: one.elsewhere for one in change.passed_over} == {"passwd.yaml": False, "sub": True}
    assert "root:" not in str(change)
    assert not list(tmp_path.rglob("escaped.yaml"))


@pytest.mark.parametrize("path", ["../..", "..", "/etc", ".git/hooks"])
def test_d12_a_path_of_the_source_stays_in_the_tree(origin, tmp_path, path):
    """Also where the configuration's own check is passed by."""
    mirror = Repository(origin.spec(tmp_path / "mirrors", path=path))
    commit = mirror.sync()
    with pytest.raises((PathNotFound, SourceError)):
        mirror.tree(commit)


def test_d12_a_huge_file_is_not_read(origin, tmp_path):
    """It is named with its size, and the others are read."""
    origin.commit({"huge.yaml": config_map("huge").encode() + b"#" * (60 << 20), "b.yaml": config_map("b")})
    spec = origin.spec(tmp_path / "mirrors")
    mirror = Repository(spec)
    change = Snapshots(spec, mirror).at(mirror.sync())
    assert sorted(one.name for one in change.upserts) == ["a", "b"]
    assert [(one.file, "MB, the limit is" in one.reason) for one in change.invalid] == [("huge.yaml", True)]


@pytest.mark.parametrize(
    "address", ["ext::touch {}", "fd::7", "--upload-pack=touch {}", "-u touch {}", "ssh://-oProxyCommand=touch%20{}/x"]
)  # fmt: skip
def test_d12_an_address_runs_nothing(origin, tmp_path, address):
    """Also if it passed the configuration."""
    marker = tmp_path / "executed"
    with pytest.raises(SourceError):
        Repository(origin.spec(tmp_path / "mirrors", repository=address.format(marker))).sync()
    assert not marker.exists()


def test_d12_nothing_that_the_origin_configures_is_run(origin, tmp_path):
    """Its hooks and its configuration are its own: they do not come with a fetch."""
    marker = tmp_path / "executed"
    for name in ("post-checkout", "reference-transaction", "post-update", "pre-auto-gc"):
        hook = origin.folder / ".git/hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\ntouch {marker}\n")
        hook.chmod(0o755)
    origin.git("config", "filter.x.smudge", f"touch {marker}")
    origin.git("config", "core.fsmonitor", f"touch {marker}")
    marker.unlink(missing_ok=True)  # the origin's own git may have run its own hooks
    spec = origin.spec(tmp_path / "mirrors")
    mirror = Repository(spec)
    commit = mirror.sync()
    mirror.keep(commit, {})
    mirror.tidy()
    list(mirror.blobs(mirror.tree(commit)))
    assert not marker.exists()
    assert not (Path(spec.mirror) / "hooks").exists()


def test_d07_submodules_and_lfs_pointers_are_told_apart_from_what_is_merely_no_manifest(origin, tmp_path):
    """Their contents are elsewhere, so the source may declare less than it seems to."""
    origin.commit({"big.yaml": "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "x.json": "[]"})
    origin.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},charts")
    origin.git("commit", "--quiet", "--message", "submodule")
    spec = origin.spec(tmp_path / "mirrors")
    mirror = Repository(spec)
    change = Snapshots(spec, mirror).at(mirror.sync())
    elsewhere = {one.file: one.reason for one in change.passed_over if one.elsewhere}
    assert elsewhere == {
        "big.yaml": "a Git LFS pointer; LFS is not fetched",
        "charts": "a submodule; submodules are not fetched",
    }
