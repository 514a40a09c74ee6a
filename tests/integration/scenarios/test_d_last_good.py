"""What cannot be read never takes an object out of the desired state: its last good version is healed by."""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import disk
from tests.support.audit import AuditTrail
from tests.support.daemon import AGENT, WRITES, Daemon
from tests.support.live import Live, Manifest
from tests.support.manifests import config_map, namespace_of
from tests.support.scene import NewDaemon, Scene

BROKEN = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n\tname: tab\n"


def writes(audit: AuditTrail, namespace: str) -> list[str]:
    """Names of the objects that were written to."""
    events = audit.events(agent=AGENT, namespace=namespace)
    return sorted(event["objectRef"]["name"] for event in events if event["verb"] in WRITES)


def read(daemon: Daemon, commit: str) -> None:
    """Wait until a commit is the snapshot."""
    daemon.wait(lambda: daemon.events("snapshot", commit=commit[:12]), f"commit {commit[:12]} is read")


def healed(daemon: Daemon, live: Live, manifest: Manifest) -> None:
    """Delete an object and wait until it is there again, as it is declared."""
    uid = live.uid(manifest)
    live.request("DELETE", live.path(manifest))
    daemon.wait(lambda: live.uid(manifest) not in ("", uid), f"{manifest['metadata']['name']} is back")
    daemon.wait_in_sync(manifest)


def test_d04_one_invalid_manifest_among_a_hundred(new_daemon: NewDaemon, live: Live, namespace: str) -> None:
    """It is named once with file, line and reason, and counted; the others follow Git, and it is healed as it was.

    Also after a restart without the repository. When it is mended, the count is zero and the new version is applied.
    """
    manifests = [config_map(f"n{number}", namespace, version="1") for number in range(100)]
    last_good = manifests[50]
    daemon = new_daemon()
    daemon.commit({"000.yaml": namespace_of(namespace), **{f"{n}.yaml": each for n, each in enumerate(manifests)}})
    daemon.start()
    daemon.wait_in_sync(last_good, manifests[99])
    assert daemon.metric("driftwatch_source_invalid_manifests", source=daemon.source) == 0

    changed = config_map("n51", namespace, version="2")
    daemon.commit({"50.yaml": BROKEN, "51.yaml": changed})

    daemon.wait_in_sync(changed)
    healed(daemon, live, last_good)
    healed(daemon, live, manifests[7])
    read(daemon, daemon.commit({"readme.md": "another commit leaves it as it is"}))
    [told] = daemon.events("invalid manifest")
    assert (told["file"], told["source"], "not YAML" in told["error"]) == ("50.yaml:4", daemon.source, True)
    assert daemon.metric("driftwatch_source_invalid_manifests", source=daemon.source) == 1
    assert daemon.metric("driftwatch_managed_objects", kind="ConfigMap") == 100

    daemon.stop()
    live.request("DELETE", live.path(last_good))
    away = daemon.repository.folder.with_name("away")
    daemon.repository.folder.rename(away)
    daemon.start()
    daemon.wait_in_sync(last_good, changed)
    healed(daemon, live, last_good)
    assert daemon.metric("driftwatch_source_invalid_manifests", source=daemon.source) == 1
    assert daemon.events("source cannot be read")

    away.rename(daemon.repository.folder)
    mended = config_map("n50", namespace, version="3")
    daemon.commit({"50.yaml": mended})
    daemon.wait_in_sync(mended)
    assert daemon.metric("driftwatch_source_invalid_manifests", source=daemon.source) == 0
    daemon.stop()


def test_d04_an_option_that_is_not_known_leaves_the_last_good_version_in_force(
    new_daemon: NewDaemon, live: Live, namespace: str
) -> None:
    """A mistyped mode pauses nothing and is not passed over: it is named, counted, and the object healed as it was."""
    settings, beside = config_map("settings", namespace, version="1"), config_map("beside", namespace, version="1")
    daemon = new_daemon()
    daemon.commit({"0.yaml": namespace_of(namespace), "settings.yaml": settings, "beside.yaml": beside})
    daemon.start()
    daemon.wait_in_sync(settings, beside)
    wrong = config_map("settings", namespace, version="2")
    wrong["metadata"]["annotations"] = {"driftwatch.io/mode": "pasued"}
    beside["data"]["version"] = "2"

    daemon.commit({"settings.yaml": wrong, "beside.yaml": beside})

    daemon.wait_in_sync(beside)
    healed(daemon, live, settings)
    [told] = daemon.events("invalid manifest")
    assert told["file"] == "settings.yaml:1"
    assert told["error"] == (
        "ConfigMap settings: the annotation driftwatch.io/mode must be heal, observe, paused or ignore"
    )
    assert daemon.metric("driftwatch_source_invalid_manifests", source=daemon.source) == 1

    wrong["metadata"]["annotations"] = {"driftwatch.io/mode": "paused"}
    daemon.commit({"settings.yaml": wrong})
    daemon.wait(lambda: daemon.metric("driftwatch_source_invalid_manifests", source=daemon.source) == 0, "it is mended")


def test_d05_a_commit_that_cannot_be_read_leaves_the_last_good_one(
    new_daemon: NewDaemon, live: Live, audit: AuditTrail, namespace: str
) -> None:
    """A commit without the source's path, and then a history that lost its revision: nothing is removed or changed."""
    settings = config_map("settings", namespace)
    daemon = new_daemon(options={"path": "app", "revision": "main"})
    good = daemon.commit({"app/all.yaml": [namespace_of(namespace), settings]})
    daemon.start()
    daemon.wait_in_sync(settings)
    audit.mark()

    daemon.commit({"app/all.yaml": None, "elsewhere/all.yaml": settings})

    told = daemon.wait(lambda: daemon.events("source cannot be read"), "the commit is refused")[0]
    assert "no folder 'app'" in told["error"]
    assert told["next"] == f"commit {good[:12]} stays in force"
    healed(daemon, live, settings)
    assert set(writes(audit, namespace)) == {"settings"}
    daemon.stop()
    daemon.start()
    healed(daemon, live, settings)
    changed = config_map("settings", namespace, colour="blue")
    daemon.commit({"app/all.yaml": [namespace_of(namespace), changed]})
    daemon.wait_in_sync(changed)


def test_d11_a_commit_that_changes_one_file_applies_one_object(scene: Scene, audit: AuditTrail) -> None:
    """One object of fifty changes: one request is made. Comments, order, moves and other files: none."""
    daemon, namespace = scene.daemon, scene.namespace
    folder = namespace
    objects = {f"{folder}/{n}.yaml": config_map(f"n{n}", namespace, version="1", other="x") for n in range(50)}
    daemon.commit({f"{folder}/000.yaml": namespace_of(namespace), **objects})
    daemon.wait_in_sync(*objects.values())
    audit.mark()

    changed = config_map("n7", namespace, version="2", other="x")
    daemon.declare(changed, file=f"{folder}/7.yaml")
    assert writes(audit, namespace) == ["n7"]

    audit.mark()
    reordered = "# a comment\ndata: {other: x, version: '1'}\nkind: ConfigMap\napiVersion: v1\n"
    moved = f"{reordered}metadata: {{namespace: {namespace}, name: n8}}\n"
    read(daemon, daemon.commit({f"{folder}/readme.md": "x", f"{folder}/8.yaml": None, f"{folder}/moved.yaml": moved}))
    read(daemon, daemon.commit({}))
    again = config_map("n9", namespace, version="2", other="x")
    daemon.declare(again, file=f"{folder}/9.yaml")
    assert writes(audit, namespace) == ["n9"]
    assert daemon.drift_total(namespace=namespace) == 0


def test_d08_a_corrupt_mirror_is_rebuilt_while_healing_goes_on(
    new_daemon: NewDaemon, live: Live, namespace: str
) -> None:
    """A mirror with damaged objects is fetched anew with the next commit; what is in memory is healed meanwhile."""
    settings = config_map("settings", namespace)
    daemon = new_daemon()
    daemon.commit({"all.yaml": [namespace_of(namespace), settings]})
    daemon.start()
    daemon.wait_in_sync(settings)
    [mirror] = daemon.folder.glob(f"state/*/mirrors/{daemon.source}")
    files = [file for file in (mirror / "objects").rglob("*") if file.is_file()]
    assert files
    for file in files:
        file.chmod(0o644)
        file.write_bytes(b"\0" * file.stat().st_size)

    healed(daemon, live, settings)
    changed = config_map("settings", namespace, colour="blue")
    daemon.commit({"all.yaml": [namespace_of(namespace), changed]})
    daemon.wait_in_sync(changed)
    healed(daemon, live, changed)
    # What is shown is kept a moment later, and then Git is looked at again.
    kept = time.time()
    daemon.wait(lambda: daemon.metric("driftwatch_git_last_success_timestamp_seconds") > kept, "the mirror is whole")

    daemon.stop()
    shutil.rmtree(daemon.repository.folder)
    live.request("DELETE", live.path(changed))
    daemon.start()
    daemon.wait_in_sync(changed)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with disk.small_disk(tmp_path / "disk", megabytes=8) as folder:
        yield folder


def test_d08_a_full_disk_is_told_and_healing_goes_on(
    new_daemon: NewDaemon, live: Live, small_disk: Path, namespace: str
) -> None:
    """State and mirror cannot be written: both are named with the system's words; when there is space, all goes on."""
    settings = config_map("settings", namespace)
    daemon = new_daemon()
    daemon.configuration["state"]["directory"] = str(small_disk)
    daemon.commit({"all.yaml": [namespace_of(namespace), settings]})
    daemon.start()
    daemon.wait_in_sync(settings)
    daemon.wait(lambda: list(small_disk.glob("*/in-force.msgpack")), "the state is on disk")
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass

    changed = config_map("settings", namespace, colour="blue", ballast=os.urandom(100_000).hex())
    daemon.commit({"all.yaml": [namespace_of(namespace), changed]})
    healed(daemon, live, settings)
    told = daemon.wait(lambda: daemon.events("source cannot be read"), "the mirror cannot be written")[0]
    assert "No space left" in told["error"]
    told = daemon.wait(lambda: daemon.events("state file cannot be written; it is tried again"), "nor the state")[0]
    assert "No space left" in told["error"]
    healed(daemon, live, settings)

    ballast.unlink()
    daemon.wait(lambda: live.difference(changed, daemon.source) == "", "the commit is applied", timeout=60)
    healed(daemon, live, changed)
    daemon.stop()
