"""A commit changes the snapshot by what it changed, and an unreadable file takes nothing out of it."""

import json

import pytest
from driftwatch.desired.follower import chunks
from driftwatch.drift.desired_state import Declared
from driftwatch.git.errors import PathNotFound
from driftwatch.manifests import yaml_documents
from driftwatch.model import ObjectKey
from driftwatch.source_spec import RenderSpec

from tests.support.desired_origin import config_map
from tests.support.followed import Followed


@pytest.fixture
def source(tmp_path):
    return Followed(tmp_path)


def names(change):
    return sorted(manifest.name for manifest in change.upserts)


def removed(change):
    return sorted(one.name for one in change.removed)


def invalid(change):
    return [(one.file, one.line) for one in change.invalid]


def test_the_first_change_is_full_and_later_ones_are_not(source):
    first = source.commit({"a.yaml": config_map("a"), "b/c/d.json": json.dumps({"apiVersion": "v1", "kind": "Secret",
                           "metadata": {"name": "b"}})})  # fmt: skip
    assert (first.full, names(first)) == (True, ["a", "b"])
    second = source.commit({"c.yml": config_map("c")})
    assert (second.full, names(second), removed(second)) == (False, ["c"], [])


def test_d11_a_commit_that_changes_one_file_reads_that_file(source):
    """Fifty files, one changed: one is parsed, one object is sent, and not twice."""
    source.commit({f"{n}.yaml": config_map(f"n{n}") for n in range(50)})
    before = source.snapshots.files_read
    change = source.commit({"7.yaml": config_map("n7", a="1")})
    assert names(change) == ["n7"]
    assert source.snapshots.files_read == before + 1


def test_d07_one_changed_file_of_ten_thousand_is_parsed_and_applied_alone(source):
    """No cluster is needed to see it: what the daemon applies is what is sent to it and differs from what it knows.

    That this is one request, the API server's own log shows of fifty (`test_d11` beside the scenarios).
    """
    declared = Declared(["shop"], lambda _kind: True)
    first = source.commit({f"{n % 100}/{n}.yaml": config_map(f"n{n}") for n in range(10_000)})
    assert len(declared.replace("shop", first.upserts)) == source.snapshots.files_read == 10_000

    change = source.commit({"77/4077.yaml": config_map("n4077", a="1")})

    assert source.snapshots.files_read == 10_000 + 1
    [sent] = chunks("shop", change)
    assert (sent.full, sent.removed) == (False, [])
    assert declared.change("shop", sent.upserts, sent.removed) == {ObjectKey("", "ConfigMap", "default", "n4077")}
    assert (json.loads(sent.upserts[0].body)["data"], sent.upserts[0].file) == ({"a": "1"}, "77/4077.yaml")


def test_d11_a_commit_that_changes_nothing_of_ours_sends_nothing(source):
    """Comments, key order and other files are no change of an object."""
    source.commit({"a.yaml": config_map("a", x="1", y="2"), "readme.md": "x"})
    change = source.commit({"a.yaml": config_map("a", y="2", x="1"), "readme.md": "y"})
    assert (names(change), removed(change)) == ([], [])
    moved = source.commit({"a.yaml": "# now on line 2\n" + config_map("a", x="1", y="2")})
    assert [manifest.line for manifest in moved.upserts] == [2]


def test_what_left_git_is_removed(source):
    """A deleted file, a deleted document, and the last of all."""
    source.commit({"a.yaml": config_map("a"), "b.yaml": config_map("b") + "---\n" + config_map("c")})
    assert removed(source.commit({"a.yaml": None})) == ["a"]
    assert removed(source.commit({"b.yaml": config_map("b")})) == ["c"]
    assert removed(source.commit({"b.yaml": None})) == ["b"]


def test_a_renamed_file_moves_its_objects(source):
    """Nothing is removed; the manifest says where it is now."""
    source.commit({"a.yaml": config_map("a")})
    change = source.commit({"a.yaml": None, "z.yaml": config_map("a")})
    assert ([manifest.file for manifest in change.upserts], removed(change)) == (["z.yaml"], [])


def test_d04_one_bad_manifest_among_a_hundred_is_named_and_the_others_are_managed(source):
    """With file and line."""
    files = {f"{n:03}.yaml": config_map(f"n{n}") for n in range(100)}
    change = source.commit(files | {"050.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata:\n\tname: x\n"})
    assert len(change.upserts) == 99
    assert invalid(change) == [("050.yaml", 4)]


@pytest.mark.parametrize("broken", ["a: [\n", "", "just text", b"\xff\xfe\x00", "apiVersion: v1\nkind: X\n"])
def test_d04_what_an_unreadable_file_declared_stays_in_force(source, broken):
    """It is neither sent again nor removed, until the file is mended; an emptied file is no mistake."""
    source.commit({"a.yaml": config_map("a") + "---\n" + config_map("b")})
    change = source.commit({"a.yaml": broken})
    if broken in ("", "just text"):
        assert (removed(change), invalid(change)) == (["a", "b"], [])
        return
    assert (names(change), removed(change)) == ([], [])
    assert change.invalid
    mended = source.commit({"a.yaml": config_map("b", x="1")})
    assert (names(mended), removed(mended), mended.invalid) == (["b"], ["a"], [])


def test_d04_one_unreadable_document_keeps_what_vanished_with_it(source):
    """Its neighbours follow Git all the same."""
    source.commit({"a.yaml": "---\n".join([config_map("a"), config_map("b"), config_map("c")])})
    change = source.commit({"a.yaml": "---\n".join([config_map("a", x="1"), "kind: ConfigMap\n", config_map("c")])})
    assert (names(change), removed(change)) == (["a", "c"], [])  # c is on another line
    assert invalid(change) == [("a.yaml", 6)]
    again = source.commit({"other.yaml": config_map("z")})
    assert (names(again), removed(again), invalid(again)) == (["z"], [], [("a.yaml", 6)])
    assert removed(source.commit({"a.yaml": None})) == ["a", "b", "c"]


def test_d04_what_is_kept_survives_a_restart(source):
    """The blob that declared it is pinned in the mirror."""
    source.commit({"a.yaml": config_map("a") + "---\n" + config_map("b")})
    source.commit({"a.yaml": config_map("a", x="1") + "---\nkind: ConfigMap\n"})
    source.commit({"a.yaml": "a: [\n"})
    source.repository._runner.run(["gc", "--prune=now", "--quiet"])
    source.restart()
    change = source.look()
    assert (change.full, names(change), invalid(change)) == (True, ["a", "b"], [("a.yaml", 1)])
    data = {manifest.name: json.loads(manifest.body)["data"] for manifest in change.upserts}
    assert data == {"a": {"x": "1"}, "b": {}}
    mended = source.commit({"a.yaml": config_map("a")})
    assert (names(mended), removed(mended)) == (["a"], ["b"])
    source.restart()
    assert names(source.look()) == ["a"]


def test_an_object_that_moved_out_of_a_broken_file_is_the_new_ones(source):
    """What is kept of a broken file yields to a declaration."""
    source.commit({"a.yaml": config_map("a")})
    change = source.commit({"a.yaml": "a: [", "b.yaml": config_map("a", x="1")})
    assert [(manifest.name, manifest.file) for manifest in change.upserts] == [("a", "b.yaml")]
    assert invalid(change) == [("a.yaml", 1)]


def test_an_object_declared_twice_is_the_first_ones_and_both_places_are_named(source):
    """When the first goes, the second comes into force, though its file did not change."""
    change = source.commit({"a.yaml": config_map("x", a="1"), "b.yaml": "# c\n" + config_map("x", b="1")})
    (manifest,) = change.upserts
    assert manifest.file == "a.yaml"
    (twice,) = change.invalid
    assert (twice.file, twice.line, "a.yaml:1" in twice.reason) == ("b.yaml", 2, True)
    read = source.snapshots.files_read
    second = source.commit({"a.yaml": None})
    assert [json.loads(manifest.body)["data"] for manifest in second.upserts] == [{"b": "1"}]
    assert (second.removed, second.invalid, source.snapshots.files_read) == ([], [], read)


def test_d01_what_is_no_manifest_is_passed_over_and_the_rest_is_found(tmp_path):
    """Dotted folders are not even mentioned; a chart's templates are not read."""
    source = Followed(tmp_path, render=RenderSpec(kind="plain"))
    (source.origin.folder / "link.yaml").symlink_to("a.yaml")
    change = source.commit({
        "a.yaml": config_map("a"), ".github/workflows/ci.yaml": "on: push", "kustomization.yaml": "resources: []",
        "chart/Chart.yaml": "name: x", "chart/templates/x.yaml": "{{ x }}: [", "values.yaml": "a: 1",
        "big.yaml": "version https://git-lfs.github.com/spec/v1\n", "docs/readme.md": "x", "empty.yaml": "# nothing\n",
    })  # fmt: skip
    assert names(change) == ["a"]
    assert not change.invalid
    assert sorted(one.file for one in change.passed_over) == [
        "big.yaml", "chart/Chart.yaml", "chart/templates/x.yaml", "kustomization.yaml", "link.yaml", "values.yaml",
    ]  # fmt: skip


def test_d02_a_file_that_is_too_large_keeps_what_it_declared(source, monkeypatch):
    """It is refused by its size, without being read."""
    source.commit({"a.yaml": config_map("a")})
    monkeypatch.setattr("driftwatch.manifests.yaml_documents.MAX_FILE_BYTES", 1000)
    change = source.commit({"a.yaml": "#" * 2000, "b.yaml": config_map("b")})
    assert (names(change), removed(change), invalid(change)) == (["b"], [], [("a.yaml", 1)])


def test_only_the_path_is_read(tmp_path):
    """Files beside it are none of the source's; a folder above it may have a dot."""
    source = Followed(tmp_path, path=".deploy/prod")
    change = source.commit({".deploy/prod/a.yaml": config_map("a"), ".deploy/prod2/b.yaml": config_map("b"),
                            ".deploy/prod/.x/c.yaml": config_map("c"), "d.yaml": config_map("d")})  # fmt: skip
    assert [(one.name, one.file) for one in change.upserts] == [("a", ".deploy/prod/a.yaml")]
    with pytest.raises(PathNotFound):
        source.commit({".deploy/prod/a.yaml": None, ".deploy/prod/.x/c.yaml": None})
    assert names(source.commit({".deploy/prod/a.yaml": config_map("a", x="1")})) == ["a"]


_read = yaml_documents.read


def test_a_mistake_of_ours_costs_one_file(source, monkeypatch, capsys):
    """The others reach the cluster, and the report says whose mistake it is."""

    def read(data):
        if b"trigger" in data:
            raise ZeroDivisionError
        return _read(data)

    monkeypatch.setattr(yaml_documents, "read", read)
    change = source.commit({"a.yaml": "trigger", "b.yaml": config_map("b")})
    assert (names(change), invalid(change)) == (["b"], [("a.yaml", 1)])
    assert "mistake in driftwatch" in change.invalid[0].reason
    assert "ZeroDivisionError" in capsys.readouterr().err
