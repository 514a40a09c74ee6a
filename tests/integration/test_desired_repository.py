"""A mirror follows a branch, tag, commit or HEAD, and survives hung, hostile and vanished remotes."""

import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from driftwatch.git.errors import GitError, MirrorCorrupt, NotARepository, PathNotFound, RevisionNotFound
from driftwatch.git.repository import Repository
from driftwatch.git.runner import TimedOut
from driftwatch.secret import redacted

from tests.support.desired_origin import Origin, config_map


@pytest.fixture
def origin(tmp_path):
    origin = Origin(tmp_path / "origin")
    origin.commit({"a.yaml": config_map("a")})
    return origin


@pytest.fixture
def repository(origin, tmp_path):
    return lambda **changes: Repository(origin.spec(tmp_path / "mirrors", **changes))


def test_d07_every_form_of_revision_is_found(origin, repository):
    """Branch, annotated and plain tag, HEAD, a full ref, a full and a short commit id."""
    first = origin.git("rev-parse", "HEAD")
    origin.git("tag", "plain")
    origin.git("tag", "--annotate", "--message", "t", "v1")
    second = origin.commit({"b.yaml": config_map("b")})
    origin.git("branch", "side/x", first)
    expected = {
        "main": second, "HEAD": second, "plain": first, "v1": first, "side/x": first, "refs/heads/main": second,
        first: first, first[:9]: first,
    }  # fmt: skip
    assert {revision: repository(revision=revision).sync() for revision in expected} == expected


def test_d07_a_commit_that_the_server_does_not_hand_out_by_its_id_is_found(origin, tmp_path):
    """Servers may refuse ids that no ref names; then the branches' history is fetched."""
    old = origin.commit({"b.yaml": config_map("b")})
    origin.commit({"b.yaml": config_map("c")})
    origin.git("config", "uploadpack.allowAnySHA1InWant", "false")
    spec = origin.spec(tmp_path / "mirrors", revision=old, repository=f"file://{origin.folder}")
    repository = Repository(spec)
    assert repository.sync() == old
    assert [entry.path for entry in repository.tree(old)] == ["a.yaml", "b.yaml"]


@pytest.mark.parametrize("form", ["{}", "file://{}", "{}/.git", "{}/../bare.git"])
def test_d07_work_trees_and_bare_repositories_are_taken(origin, tmp_path, form):
    """A path or file URL, with a work tree or without."""
    subprocess.run(["git", "clone", "--quiet", "--bare", origin.folder, tmp_path / "bare.git"], check=True)
    spec = origin.spec(tmp_path / "mirrors", repository=form.format(origin.folder))
    assert Repository(spec).sync() == origin.git("rev-parse", "HEAD")


def test_d07_a_sha256_repository_is_mirrored_as_one(tmp_path):
    """The mirror takes the remote's object format."""
    origin = Origin(tmp_path / "origin", "--object-format=sha256")
    commit = origin.commit({"a.yaml": config_map("a")})
    repository = Repository(origin.spec(tmp_path / "mirrors"))
    assert repository.sync() == commit
    assert repository.sync() == commit
    assert repository.fetches == 2  # once in vain, with the other format


def test_d07_nothing_is_fetched_while_nothing_changes(origin, repository):
    """The remote is asked for its ref, and that is all."""
    mirror = repository()
    first = mirror.sync()
    assert (mirror.sync(), mirror.fetches) == (first, 1)
    second = origin.commit({"b.yaml": config_map("b")})
    assert (mirror.sync(), mirror.fetches) == (second, 2)
    assert mirror._runner.run(["rev-list", "--count", second]) == b"1\n"


def test_d07_a_force_push_is_followed(origin, repository):
    """History that was rewritten is what the revision is now."""
    mirror = repository()
    mirror.sync()
    origin.git("commit", "--quiet", "--amend", "--message", "rewritten")
    assert mirror.sync() == origin.git("rev-parse", "HEAD")


def test_d07_a_moved_tag_is_followed(origin, repository):
    """Tags move in practice, annotated ones too."""
    mirror = repository(revision="v1")
    origin.git("tag", "--annotate", "--message", "t", "v1")
    mirror.sync()
    moved = origin.commit({"b.yaml": config_map("b")})
    origin.git("tag", "--force", "--annotate", "--message", "t", "v1")
    assert mirror.sync() == moved


def test_the_mirror_does_not_grow_without_end(origin, repository, tmp_path):
    """Objects that no commit in force has are dropped when there are many, and what is pinned stays."""
    mirror = repository()
    mirror.sync()
    old = mirror.tree(origin.git("rev-parse", "HEAD"))
    second = origin.commit({"a.yaml": None, "b.yaml": config_map("b")})
    mirror.keep(mirror.sync(), {"a.yaml": [old[0].blob]})
    files = [tmp_path / f"{number}" for number in range(3000)]
    for file in files:
        file.write_text(file.name)
    names = "\n".join(map(str, files)).encode()
    mirror._runner.run(["hash-object", "-w", "--stdin-paths"], stdin=names)
    mirror.tidy()
    assert b"count: 0\n" in mirror._runner.run(["count-objects", "-v"])
    assert len(list(mirror.blobs([*old, *mirror.tree(second)]))) == 2


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"revision": "nope"}, RevisionNotFound, "no such branch, tag or commit"),
        ({"revision": "deadbeef"}, RevisionNotFound, "leads to such a commit"),
        ({"revision": "0" * 40}, RevisionNotFound, "leads to such a commit"),
        ({"revision": "main~1"}, RevisionNotFound, "no branch, tag or commit"),
        ({"revision": "--upload-pack=touch x"}, RevisionNotFound, "no branch, tag or commit"),
        ({"repository": "/nowhere/at/all"}, NotARepository, "does not appear to be a git repository"),
        ({"repository": "--upload-pack=touch x"}, GitError, "source shop"),
        ({"repository": "ext::touch /tmp/x"}, GitError, "not allowed"),
        ({"repository": "https://user:hunter2@127.0.0.1:1/x.git"}, GitError, "127.0.0.1"),
    ],
)
def test_errors_name_the_source_and_say_what_git_said(repository, changes, error, words):
    """The operator sees source, repository, revision and Git's words, and never a password."""
    with pytest.raises(error) as caught:
        repository(**changes).sync()
    message = str(caught.value)
    assert words in message
    assert message.startswith("source shop: ")
    assert "hunter2" not in message


def test_a_tag_that_is_no_commit_is_an_error(origin, repository):
    """A tag may name a file or a folder."""
    origin.git("tag", "blob", "HEAD:a.yaml")
    with pytest.raises(RevisionNotFound, match="no commit"):
        repository(revision="blob").sync()


def test_an_empty_repository_has_no_revision(tmp_path):
    """Nothing was pushed yet."""
    with pytest.raises(RevisionNotFound):
        Repository(Origin(tmp_path / "empty").spec(tmp_path / "mirrors", revision="HEAD")).sync()


@pytest.mark.parametrize("path", ["nope", "a.yaml/b", "link"])
def test_a_path_that_is_not_there_is_an_error(origin, repository, path):
    """Also one that is a symbolic link out of the tree."""
    (origin.folder / "link").symlink_to("/etc")
    origin.commit({})
    mirror = repository(path=path)
    with pytest.raises(PathNotFound, match="has no folder"):
        mirror.tree(mirror.sync())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://u:p@host/x", "https://***@host/x"),
        ("https://token@host/x?private_token=s", "https://***@host/x?private_token=***"),
        ("at 'https://u:p@ss@host/x'", "at 'https://***@host/x'"),
        ("ssh://git@host/x", "ssh://git@host/x"),
        ("git@host:x", "git@host:x"),
    ],
)
def test_credentials_in_urls_are_hidden(text, expected):
    """The user name may be the token."""
    assert redacted(text) == expected


def test_a_new_password_is_no_new_repository(repository):
    """The mirror outlives a rotated token, also when the remote is away."""
    first = repository(repository="https://u:one@127.0.0.1:1/x")
    second = repository(repository="https://u:two@127.0.0.1:1/x")
    assert first._remote_id() == second._remote_id()


def test_another_repository_under_the_same_name_gets_a_new_mirror(repository, tmp_path):
    """What the old one had is not served for the new one."""
    mirror = repository()
    mirror.keep(mirror.sync(), {})
    assert repository().good() is not None
    assert repository(repository=str(tmp_path / "elsewhere")).good() is None


def test_d08_a_good_commit_is_remembered_when_the_remote_is_gone(origin, repository):
    """After a restart without network the mirror knows what to serve, per revision."""
    mirror = repository()
    commit = mirror.sync()
    mirror.keep(commit, {"a.yaml": []})
    shutil.rmtree(origin.folder)
    again = repository()
    with pytest.raises(NotARepository):
        again.sync()
    assert again.good() == commit
    assert repository(revision="other").good() is None


@pytest.mark.parametrize("damage", ["HEAD", "config", "objects", "refs"])
def test_d08_a_damaged_mirror_is_built_anew(repository, damage):
    """Whatever a full disk or a crash left behind."""
    commit = repository().sync()
    target = Path(repository().spec.mirror) / damage
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.write_bytes(b"\0garbage")
    mirror = repository()
    assert mirror.sync() == commit
    assert len(list(mirror.blobs(mirror.tree(commit)))) == 1


def test_d08_a_missing_blob_is_known_and_mended(repository):
    """Git notices only when it is read."""
    mirror = repository()
    commit = mirror.sync()
    blob = mirror.tree(commit)[0].blob
    for pack in (Path(mirror.spec.mirror) / "objects/pack").iterdir():
        pack.unlink()
    shutil.rmtree(Path(mirror.spec.mirror) / "objects" / blob[:2], ignore_errors=True)
    with pytest.raises(GitError):
        list(mirror.blobs(mirror.tree(commit)))
    assert mirror.sync(rebuild=True) == commit
    assert len(list(mirror.blobs(mirror.tree(commit)))) == 1


def test_d08_what_a_killed_git_left_does_not_stop_the_next(origin, repository):
    """A lock file without an owner."""
    mirror = repository()
    mirror.sync()
    for name in ("shallow.lock", "packed-refs.lock", "config.lock"):
        (Path(mirror.spec.mirror) / name).touch()
    commit = origin.commit({"b.yaml": config_map("b")})
    assert repository().sync() == commit


def _script(file, text):
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return file


def _alive(pids):
    def runs(pid):
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    return [pid for pid in pids if runs(pid)]


@pytest.mark.alone
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_d08_a_hung_remote_is_ended_with_all_that_it_started(tmp_path, origin, monkeypatch):
    """An ssh that says nothing, and a child of its own that holds the pipe, are gone after the timeout."""
    pids = tmp_path / "pids"
    ssh = _script(tmp_path / "ssh", f"sleep 300 &\necho $! $$ >> {pids}\nwait")
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    repository = Repository(origin.spec(tmp_path / "mirrors", repository="ssh://git@example.com/x", timeout=1.0))
    started = time.monotonic()
    with pytest.raises(TimedOut, match="did not answer within 1 s"):
        repository.sync()
    assert time.monotonic() - started < 4
    assert not _alive(pids.read_text().split())


def test_d12_nobody_is_asked_for_a_password(tmp_path, origin, monkeypatch):
    """Neither a terminal nor an askpass program is asked, and ssh is told not to."""
    asked = tmp_path / "asked"
    monkeypatch.setenv("GIT_ASKPASS", str(_script(tmp_path / "askpass", f"touch {asked}")))
    monkeypatch.delenv("GIT_SSH_COMMAND", raising=False)
    folder = tmp_path / "bin"
    folder.mkdir()
    arguments = tmp_path / "arguments"
    _script(folder / "ssh", f'echo "$@" >> {arguments}; exit 1')
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(GitError):
        Repository(origin.spec(tmp_path / "mirrors", repository="ssh://git@example.com/x")).sync()
    assert "BatchMode=yes" in arguments.read_text()
    assert not asked.exists()


def test_d12_nothing_of_the_repository_is_executed_or_written(origin, repository, tmp_path):
    """Hooks, filters, links and names with dots or newlines: only the object database is read."""
    marker = tmp_path / "executed"
    origin.commit({".gitattributes": "* filter=x\n", ".gitconfig": f'[filter "x"]\n\tsmudge = touch {marker}\n'})
    _script(origin.folder / ".git/hooks/post-checkout", f"touch {marker}")
    blob = origin.git("hash-object", "-w", "--stdin", stdin=config_map("x"))
    tree = f"100644 blob {blob}\tnew\nline.yaml\0" + f"100644 blob {blob}\t\x1b[31m.yaml\0"
    tree += f"160000 commit {'1' * 40}\tsub\0" + f"120000 blob {blob}\tlink.yaml\0"
    evil = origin.git("mktree", "-z", "--missing", stdin=tree)
    commit = origin.git("commit-tree", evil, "-m", "evil")
    origin.git("update-ref", "refs/heads/main", commit)
    mirror = repository()
    entries = {entry.path: entry for entry in mirror.tree(mirror.sync())}
    assert entries.keys() == {"new\\nline.yaml", "\\x1b[31m.yaml", "sub", "link.yaml"}
    assert [entry.is_file for entry in entries.values()].count(True) == 2
    assert not marker.exists()
    assert not (Path(mirror.spec.mirror) / "hooks").exists()
    assert not list(tmp_path.rglob("line.yaml"))


def test_reading_says_so_when_the_mirror_lacks_a_blob(repository):
    """An id that is nowhere is a damaged mirror."""
    mirror = repository()
    (entry,) = mirror.tree(mirror.sync())
    with pytest.raises(MirrorCorrupt, match="lacks the contents"):
        list(mirror.blobs([entry._replace(blob="1" * 40)]))
