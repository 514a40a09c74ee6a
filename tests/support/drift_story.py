"""A scripted story of drift with a daemon that keeps it and a Prometheus that scrapes it from beginning to end.

Everything that driftwatch has a metric for happens in it once. Alerts and dashboards are checked against it: start it
once a session (fixture `story`), and ask. The cluster is shared: the names of its sources are nobody else's, or what
others have left there would be its orphans.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from driftwatch.localcluster import LocalCluster

from tests.support.daemon import Daemon
from tests.support.kubectl import Kubectl
from tests.support.live import Live
from tests.support.manifests import config_map, deployment, manifest, namespace_of
from tests.support.prometheus import Prometheus
from tests.support.receiver import receiver
from tests.support.repository import Repository
from tests.support.scene import daemons
from tests.support.waiting import until

NAMESPACE = "story-prod"
LOST = "story-lost"
PAINTER = "painter"
SOURCE = "story"


@dataclass
class Story:
    """What was played: the daemon, the Prometheus that saw all of it, and when it began, in Unix seconds."""

    daemon: Daemon
    prometheus: Prometheus
    began: float


@contextmanager
def played(cluster: LocalCluster, live: Live, kubectl: Kubectl, folder: Path) -> Iterator[Story]:
    """Play the story; daemon and Prometheus run on until the end of the context."""

    class Folders:
        """Where `daemons` gets its folders from."""

        @staticmethod
        def mktemp(name: str) -> Path:
            made = folder / name
            made.mkdir(parents=True)
            return made

    with daemons(cluster, live, Folders()) as new, receiver() as told:  # type: ignore[arg-type]
        repository, watched = Repository(folder / "story-git"), Repository(folder / "watched-git")
        pruned = Repository(folder / "pruned-git")
        daemon = new(
            sources=[
                {"name": SOURCE, "repository": str(repository.folder)},
                {"name": "watched", "repository": str(watched.folder), "mode": "observe"},
                {"name": "pruned", "repository": str(pruned.folder), "prune": True, "pruneDelay": "1s"},
                {"name": "nowhere", "repository": str(folder / "no-repository")},
            ],
            name=SOURCE,
        )
        daemon.repository = repository
        daemon.configuration["notifications"] = [{"name": "hook", "type": "webhook", "url": told.url}]
        repository.commit(_first_commit())
        watched.commit({"all.yaml": [config_map("watched", NAMESPACE, colour="blue")]})
        pruned.commit({f"{name}.yaml": [config_map(name, NAMESPACE)] for name in ("stays", "goes")})
        daemon.start(ready=False)
        daemon.wait(lambda: daemon.events("listening"), "it listens")
        with Prometheus(folder / "prometheus", [daemon.events("listening")[-1]["address"]]) as prometheus:
            story = Story(daemon, prometheus, time.time())
            _play(story, live, kubectl)
            _prune(story, pruned, folder / "no-repository")
            yield story


def _first_commit() -> dict[str, object]:
    return {
        "all.yaml": [
            namespace_of(NAMESPACE),
            namespace_of(LOST),
            deployment("web", NAMESPACE),
            config_map("settings", NAMESPACE, colour="blue"),
            config_map("fought-over", NAMESPACE, colour="blue"),
            config_map("asleep", NAMESPACE, colour="blue"),
            manifest("v1", "Secret", "password", NAMESPACE, stringData={"word": "open sesame"}),
        ],
        "left.yaml": [config_map("left", NAMESPACE)],
    }


def _prune(story: Story, pruned: Repository, nowhere: Path) -> None:
    """What left Git is held back for a source that cannot be read, then pruned; an orphan stays where prune is off."""
    pruned.commit({"goes.yaml": None})
    story.daemon.wait(lambda: story.daemon.events("prune is held", source="pruned"), "it is held back")
    Repository(nowhere).commit({"README.md": "There is something now."})
    story.daemon.wait(lambda: story.daemon.events("pruned", name="goes"), "what left Git is pruned", timeout=90.0)
    story.daemon.commit({"left.yaml": None})
    story.prometheus.wait("driftwatch_prunes_total > 0", "the pruning is scraped")
    story.prometheus.wait(f'driftwatch_orphaned_objects{{source="{SOURCE}"}} == 1', "what is left is an orphan")


def _play(story: Story, live: Live, kubectl: Kubectl) -> None:
    daemon = story.daemon
    web, settings = deployment("web", NAMESPACE), config_map("settings", NAMESPACE, colour="blue")
    daemon.wait_in_sync(web, settings)
    # Series that begin at zero have to be seen at zero.
    story.prometheus.wait(
        f'driftwatch_heals_total{{namespace="{NAMESPACE}",kind="ConfigMap",result="success"}} == 0', "zero is scraped"
    )

    kubectl("delete", "configmap", "settings", "-n", NAMESPACE)
    daemon.wait_drift(namespace=NAMESPACE, name="settings", type="deleted")
    kubectl("set", "image", "deploy/web", "app=registry.example.com/app:2.0", "-n", NAMESPACE)
    daemon.wait_drift(namespace=NAMESPACE, name="web", type="modified", manager="kubectl-set")
    kubectl("label", "deploy/web", "team=night-shift", "-n", NAMESPACE)
    daemon.wait_drift(namespace=NAMESPACE, name="web", type="added", manager="kubectl-label")

    fought_over = config_map("fought-over", NAMESPACE, colour="blue")
    for _ in range(8):
        live.patch(fought_over, {"data": {"colour": "green"}}, manager=PAINTER)
        until(lambda: live.get(fought_over)["data"]["colour"] == "blue", "it is put back")
    daemon.wait(lambda: daemon.events("contested", name="fought-over"), "it is said who contests it")

    until_when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
    kubectl("annotate", "configmap", "asleep", f"driftwatch.io/snooze-until={until_when}", "-n", NAMESPACE)
    live.patch(config_map("asleep", NAMESPACE), {"data": {"colour": "grey"}}, manager="kubectl-edit")
    daemon.wait(lambda: daemon.events("snoozed", name="asleep"), "it is snoozed")

    kubectl("create", "configmap", "watched", "--from-literal=colour=red", "-n", NAMESPACE)
    daemon.wait(lambda: daemon.events("drift", source="watched", type="modified"), "what is only observed is told")

    daemon.commit(
        {
            "refused.yaml": [manifest("v1", "Service", "refused", NAMESPACE, spec={"ports": [{"port": 99999}]})],
            "unknown.yaml": [manifest("example.com/v1", "Ghost", "ghost", NAMESPACE)],
            "broken.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: [broken}\n",
        }
    )
    daemon.wait(lambda: daemon.events("not applied", name="refused"), "what the API server refuses is told")
    daemon.wait(lambda: daemon.events("invalid manifest"), "what cannot be read is told")

    file = daemon.folder / "driftwatch.yaml"
    good = file.read_text()
    file.write_text("sources: nonsense\n")
    daemon.wait(lambda: daemon.events("configuration cannot be used"), "a broken configuration is refused")
    file.write_text(good + "\n# Mended.\n")
    daemon.wait(lambda: daemon.events("configuration reloaded"), "the mended one is taken in")

    kubectl("delete", "namespace", LOST, "--wait=false")
    daemon.wait(lambda: daemon.drifts(kind="Namespace", name=LOST, type="deleted"), "the deletion is seen")
    daemon.wait_drift(kind="Namespace", name=LOST, type="deleted")
    story.prometheus.wait(
        f'driftwatch_drift_total{{kind="Namespace",type="deleted",source="{SOURCE}"}} > 0', "the last of it is scraped"
    )
    story.prometheus.wait('driftwatch_notifications_total{result="sent"} > 0', "what was told is scraped")
