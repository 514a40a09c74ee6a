"""The audit, which dry-runs everything from time to time: it finds what no event told of, and else nothing."""

from tests.support.audit import AuditTrail
from tests.support.daemon import AGENT, WRITES
from tests.support.live import Live
from tests.support.manifests import config_map, deployment, manifest, namespace_of
from tests.support.repository import Repository
from tests.support.scene import NewDaemon

ROUNDS = 3


def test_b06_audit_finds_nothing_where_all_is_known(
    new_daemon: NewDaemon, live: Live, audit: AuditTrail, namespace: str
) -> None:
    """Autoscaled replicas, ignored fields, defaults, and drift that is reported already: no finding, and no write."""
    web = deployment("web", namespace)
    settings = config_map("settings", namespace, colour="red", spare="1")
    service = manifest("v1", "Service", "web", namespace, spec={"selector": {"app": "web"}, "ports": [{"port": 80}]})
    secret = manifest("v1", "Secret", "login", namespace, stringData={"word": "sesame"})
    observed = config_map("observed", namespace)
    daemon = new_daemon(options={"additions": "report"})
    looked_at = Repository(daemon.folder / "observed")
    looked_at.commit({"all.yaml": observed})
    daemon.configuration["sources"].append(
        {"name": "lab", "repository": str(looked_at.folder), "mode": "observe", "interval": "250ms"}
    )
    daemon.configuration |= {"drift": {"audit": "500ms"}, "ignore": [{"pointers": ["/data/spare"]}]}
    daemon.commit({"all.yaml": [namespace_of(namespace), web, settings, service, secret]})
    daemon.start()
    daemon.wait_in_sync(web, settings, service, secret)
    live.request("POST", live.path(observed).removesuffix("/observed"), observed)
    live.patch(observed, {"data": {"colour": "blue"}}, manager="kubectl-edit")
    live.patch(settings, {"data": {"spare": "2", "extra": "1"}}, manager="kubectl-edit")
    audit.mark()

    def written() -> list[str]:
        return [
            event["requestURI"]
            for event in audit.events(agent=AGENT)
            if event["verb"] in WRITES and "dryRun=All" not in event["requestURI"]
        ]

    scale = f"{live.path(web)}/scale?fieldManager=kube-controller-manager"
    live.request("PATCH", scale, {"spec": {"replicas": 4}}, media_type="application/merge-patch+json")
    daemon.wait(lambda: daemon.metric("driftwatch_drifted_objects", namespace=namespace) == 2, "both are reported")
    daemon.wait(lambda: any("/deployments/" in uri for uri in written()), "the scaled one is judged, by an apply")
    audit.mark()

    def checked() -> float:
        return daemon.metric("driftwatch_audited_objects_total")

    before = checked()
    daemon.wait(lambda: checked() >= before + ROUNDS * 4, "the audit has gone round several times")
    assert daemon.metric("driftwatch_audit_findings_total") == 0
    assert written() == []
