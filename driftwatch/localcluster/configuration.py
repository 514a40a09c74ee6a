"""Configuration of the control plane: command lines, kubeconfig files and the audit policy.

It resembles a production cluster as far as possible without nodes. RBAC, the default admission plugins, the watch
cache and API priority and fairness are enabled. Every component has its own identity. etcd and the API use TLS.
"""

import base64

import yaml

from driftwatch.localcluster.binaries import Binaries
from driftwatch.localcluster.certificates import SERVICE_IP_RANGE, Pki
from driftwatch.localcluster.layout import Component, Layout, Ports

CONTEXT = "driftwatch-local"

# Controllers for nodes, of which there are none.
_NODE_CONTROLLERS = (
    "node-ipam-controller",
    "node-lifecycle-controller",
    "taint-eviction-controller",
    "device-taint-eviction-controller",
    "ttl-controller",
    "persistentvolume-attach-detach-controller",
)

_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    # One line per request, written on completion: it has both timestamps and the response code.
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [
        # The API server sends itself requests all the time, and probes come every few seconds. Neither changes
        # the cluster.
        {"level": "None", "users": ["system:apiserver"]},
        {"level": "None", "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*"]},
        {"level": "Metadata"},
    ],
}


def audit_policy() -> bytes:
    """The API server's audit policy file."""
    return yaml.safe_dump(_AUDIT_POLICY, sort_keys=False).encode()


def server_url(ports: Ports) -> str:
    """URL of the API server."""
    return f"https://127.0.0.1:{ports.apiserver}"


def kubeconfig(pki: Pki, ports: Ports, user: str) -> bytes:
    """A kubeconfig file for the certificate called `user`, with all credentials embedded."""

    def embedded(content: bytes) -> str:
        return base64.b64encode(content).decode()

    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": CONTEXT,
        "clusters": [
            {
                "name": CONTEXT,
                "cluster": {
                    "server": server_url(ports),
                    "certificate-authority-data": embedded(pki.certificate("ca").read_bytes()),
                },
            }
        ],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": user}}],
        "users": [
            {
                "name": user,
                "user": {
                    "client-certificate-data": embedded(pki.certificate(user).read_bytes()),
                    "client-key-data": embedded(pki.key(user).read_bytes()),
                },
            }
        ],
    }
    return yaml.safe_dump(document, sort_keys=False).encode()


def command(component: Component, binaries: Binaries, layout: Layout, ports: Ports, *, fsync: bool) -> list[str]:
    """The command line of `component`."""
    pki = Pki(layout.pki)
    match component:
        case Component.ETCD:
            return [str(binaries.etcd), *_etcd(layout, pki, ports, fsync=fsync)]
        case Component.APISERVER:
            return [str(binaries.kube_apiserver), *_apiserver(layout, pki, ports)]
        case Component.CONTROLLER_MANAGER:
            return [str(binaries.kube_controller_manager), *_controller_manager(layout, pki, ports)]


def _etcd(layout: Layout, pki: Pki, ports: Ports, *, fsync: bool) -> list[str]:
    client, peer = f"https://127.0.0.1:{ports.etcd}", f"https://127.0.0.1:{ports.etcd_peer}"
    authority, certificate, key = pki.certificate("etcd-ca"), pki.certificate("etcd"), pki.key("etcd")
    flags = [
        "--name=local",
        f"--data-dir={layout.etcd}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=local={peer}",
        f"--trusted-ca-file={authority}",
        f"--cert-file={certificate}",
        f"--key-file={key}",
        "--client-cert-auth",
        f"--peer-trusted-ca-file={authority}",
        f"--peer-cert-file={certificate}",
        f"--peer-key-file={key}",
        "--peer-client-cert-auth",
        # A single member waits one election timeout before it leads; the defaults are for distributed members.
        "--heartbeat-interval=20",
        "--election-timeout=200",
        "--log-level=warn",
    ]
    if not fsync:
        flags.append("--unsafe-no-fsync")
    return flags


def _apiserver(layout: Layout, pki: Pki, ports: Ports) -> list[str]:
    return [
        "--bind-address=127.0.0.1",
        f"--secure-port={ports.apiserver}",
        # Without it the server looks up the address of the default route, which a machine may not have. Nothing
        # uses the address: no Pod reaches the API through the service `kubernetes`.
        "--advertise-address=127.0.0.1",
        "--endpoint-reconciler-type=none",
        f"--service-cluster-ip-range={SERVICE_IP_RANGE}",
        f"--tls-cert-file={pki.certificate('apiserver')}",
        f"--tls-private-key-file={pki.key('apiserver')}",
        f"--client-ca-file={pki.certificate('ca')}",
        f"--etcd-servers=https://127.0.0.1:{ports.etcd}",
        f"--etcd-cafile={pki.certificate('etcd-ca')}",
        f"--etcd-certfile={pki.certificate('apiserver-etcd-client')}",
        f"--etcd-keyfile={pki.key('apiserver-etcd-client')}",
        "--authorization-mode=Node,RBAC",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-signing-key-file={pki.key('service-account')}",
        f"--service-account-key-file={pki.service_account_public_key}",
        "--allow-privileged=true",
        "--profiling=false",
        f"--audit-policy-file={layout.audit_policy}",
        f"--audit-log-path={layout.audit_log}",
        # In megabytes. A reader that keeps a position must not have the log rotated away (the default is 100).
        "--audit-log-maxsize=1000000",
        # Without it a stopping server waits up to a minute for its watches, and the controller manager never
        # closes its own. With it the server ends the streams in an orderly way.
        "--shutdown-watch-termination-grace-period=1s",
    ]


def _controller_manager(layout: Layout, pki: Pki, ports: Ports) -> list[str]:
    kubeconfig_path = layout.controller_manager_kubeconfig
    return [
        "--bind-address=127.0.0.1",
        f"--secure-port={ports.controller_manager}",
        f"--tls-cert-file={pki.certificate('controller-manager-serving')}",
        f"--tls-private-key-file={pki.key('controller-manager-serving')}",
        f"--kubeconfig={kubeconfig_path}",
        f"--authentication-kubeconfig={kubeconfig_path}",
        f"--authorization-kubeconfig={kubeconfig_path}",
        # There is only one instance, and waiting for a lease would double the start time.
        "--leader-elect=false",
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={pki.key('service-account')}",
        f"--root-ca-file={pki.certificate('ca')}",
        "--controllers=" + ",".join(("*", *(f"-{name}" for name in _NODE_CONTROLLERS))),
        "--profiling=false",
        # At the default of 20 requests a second, a rollout of many objects is slow, and so is the deletion of a full
        # namespace.
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
    ]
