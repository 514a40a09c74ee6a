"""Repositories that are too much: each gives one clear message a file, and what is good beside it is read."""

import subprocess

import pytest
from driftwatch.desired.snapshot import Snapshots
from driftwatch.git.repository import Repository
from driftwatch.manifests import yaml_documents

from tests.support.desired_origin import Origin, config_map

MANY = 100_000
BOMB = "l0: &l0 [lol]\n" + "\n".join(
    f"l{level}: &l{level} [{', '.join([f'*l{level - 1}'] * 9)}]" for level in range(1, 12)
)
HEAD = config_map("bad").rpartition("data:")[0]
TOO_MUCH = {
    "alias-bomb.yaml": (HEAD + BOMB, 4, "the document's aliases expand to too much"),
    "alias-of-itself.yaml": (f"{HEAD}data: &a [*a]\n", 4, "an anchor's value contains itself"),
    "binary.yaml": (b"apiVersion\x00\x01\x02\xfe\xff" * 100, 1, "not UTF-8 text: invalid start byte"),
    "deep-flow.yaml": (f"{HEAD}data: {'[' * 100_000}\n", 4, "nested deeper than 200 levels"),
    "deep-json.json": ('{"apiVersion": ' + '{"a": ' * 50_000, 1, "nested deeper than 200 levels"),
    "document.yaml": (
        f"{HEAD}data: {{a: {'x' * yaml_documents.MAX_DOCUMENT_BYTES}}}\n",
        1,
        "the document is larger than 3 MB",
    ),
    "file.yaml": (b"#" * (yaml_documents.MAX_FILE_BYTES + 1), 1, "the file has 50 MB, the limit is 50 MB"),
    "gzip.json": (b"\x1f\x8b\x08\x00apiVersion" + bytes(range(256)), 1, "not UTF-8 text: invalid start byte"),
}


@pytest.fixture
def source(tmp_path):
    """An origin, and what reads it."""
    origin = Origin(tmp_path / "origin")
    spec = origin.spec(tmp_path / "mirrors")
    repository = Repository(spec)
    return origin, repository, Snapshots(spec, repository)


def test_d02_files_that_are_too_much_give_one_message_each(source):
    """Bombs, nesting without end, 50 MB and binary data are named with line and reason; the rest is read."""
    origin, repository, snapshots = source
    origin.commit({"good.yaml": config_map("good"), **{name: content for name, (content, _, _) in TOO_MUCH.items()}})

    change = snapshots.at(repository.sync())

    assert [manifest.name for manifest in change.upserts] == ["good"]
    assert {each.file: (each.line, each.reason) for each in change.invalid} == {
        name: (line, reason) for name, (_, line, reason) in TOO_MUCH.items()
    }
    assert len(change.invalid) == len(TOO_MUCH)


@pytest.mark.slow
def test_d02_a_hundred_thousand_small_files_are_read(source):
    """A repository of as many files is a snapshot like any other, and the next commit reads one."""
    origin, repository, snapshots = source
    _import(origin, {f"many/{number % 100}/{number}.yaml": f"a: {number}\n" for number in range(MANY)})
    first = snapshots.at(repository.sync())
    assert (first.upserts, first.invalid, len(first.passed_over)) == ([], [], MANY)
    read = snapshots.files_read

    _import(origin, {"one.yaml": config_map("one")}, onto="from refs/heads/main^0\n")
    change = snapshots.at(repository.sync())

    assert [manifest.name for manifest in change.upserts] == ["one"]
    assert (snapshots.files_read - read, change.removed) == (1, [])


def _import(origin, files, onto=""):
    """Commit many files without a work tree, which would take minutes."""
    lines = [f"commit refs/heads/main\ncommitter Test <test@example.com> 1700000000 +0000\ndata 4\nmany\n{onto}"]
    lines += [f"M 100644 inline {name}\ndata {len(text)}\n{text}\n" for name, text in files.items()]
    command = ["git", "-C", str(origin.folder), "fast-import", "--quiet"]
    subprocess.run(command, input="".join(lines).encode(), check=True)
