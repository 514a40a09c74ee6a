"""The etcd of a local control plane: compacted, backed up and restored, and asked how often an object was written."""

import base64
import contextlib
import json
import shutil
import signal
import ssl
import urllib.request
from pathlib import Path
from typing import Any

from driftwatch.localcluster import Component, LocalCluster, StateError
from driftwatch.localcluster.certificates import Pki
from driftwatch.localcluster.layout import Layout

from tests.support.live import Manifest

ANSWER_SECONDS = 10.0
RESTARTED = (Component.APISERVER, Component.CONTROLLER_MANAGER)  # what reads the store, and remembers what it has read


class Store:
    """Speaks to etcd as the API server does, by the JSON of its gRPC gateway."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._layout = Layout(cluster.directory)

    def revision(self) -> int:
        """The newest revision: what Kubernetes calls the resourceVersion of the cluster."""
        return int(self._ask("maintenance/status")["header"]["revision"])

    def compact(self) -> None:
        """Forget all revisions before the newest one."""
        self._ask("kv/compaction", revision=str(self.revision()), physical=True)

    def writes(self, manifest: Manifest) -> int:
        """How often the object was written since it was created, its creation included; 0 where it is not.

        A write that changes nothing does not reach the store.
        """
        key = base64.b64encode(_key(manifest).encode()).decode()
        found = self._ask("kv/range", key=key).get("kvs", [])
        return int(found[0]["version"]) if found else 0

    def backup(self, folder: Path) -> None:
        """Copy what etcd has on disk into a new folder, while it holds still."""
        self._cluster.kill(Component.ETCD, signal.SIGSTOP)
        try:
            shutil.copytree(self._layout.etcd, folder)
        finally:
            self._cluster.kill(Component.ETCD, signal.SIGCONT)

    def restore(self, folder: Path) -> None:
        """Put a backup in the store's place, as administrators do: with everything stopped that reads it."""
        for component in (*RESTARTED, Component.ETCD):
            with contextlib.suppress(StateError):  # it does not run anyway
                self._cluster.kill(component)
        shutil.rmtree(self._layout.etcd)
        shutil.copytree(folder, self._layout.etcd)
        for component in (Component.ETCD, *RESTARTED):
            self._cluster.start(component)

    def _ask(self, method: str, **fields: Any) -> dict[str, Any]:
        pki = Pki(self._layout.pki)
        context = ssl.create_default_context(cafile=str(pki.certificate("etcd-ca")))
        context.load_cert_chain(pki.certificate("apiserver-etcd-client"), pki.key("apiserver-etcd-client"))
        state = self._layout.load()
        assert state is not None
        request = urllib.request.Request(
            f"https://127.0.0.1:{state.ports.etcd}/v3/{method}", json.dumps(fields).encode(), method="POST"
        )
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS, context=context) as answer:  # noqa: S310
            found: dict[str, Any] = json.load(answer)
        return found


def _key(manifest: Manifest) -> str:
    """Where the API server keeps an object of a kind as plain as ConfigMap or Deployment."""
    metadata = manifest["metadata"]
    return f"/registry/{manifest['kind'].lower()}s/{metadata['namespace']}/{metadata['name']}"
