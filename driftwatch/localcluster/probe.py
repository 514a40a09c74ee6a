"""Readiness probes of the components, over HTTPS."""

import http.client
import ssl
from pathlib import Path

from driftwatch.localcluster.certificates import Pki
from driftwatch.localcluster.layout import Component, Ports

REQUEST_SECONDS = 5.0


class Probe:
    """Sends readiness requests to one cluster's components, with the administrator's certificate."""

    def __init__(self, pki: Pki, ports: Ports) -> None:
        self._ports = ports
        self._kubernetes = _context(pki.certificate("ca"), pki.certificate("admin"), pki.key("admin"))
        self._etcd = _context(
            pki.certificate("etcd-ca"),
            pki.certificate("apiserver-etcd-client"),
            pki.key("apiserver-etcd-client"),
        )

    def waits_for(self, component: Component) -> str | None:
        """None if `component` is ready, else what it waits for, quoting the component where possible."""
        match component:
            case Component.ETCD:
                return self._ask(self._etcd, self._ports.etcd, "/readyz")
            case Component.APISERVER:
                return self._ask(self._kubernetes, self._ports.apiserver, "/readyz")
            case Component.CONTROLLER_MANAGER:
                return self._ask(self._kubernetes, self._ports.controller_manager, "/healthz") or self._account()

    def _account(self) -> str | None:
        """Wait for the service account in `default`. A controller creates it, and no Pod is admitted earlier."""
        return (
            self._ask(self._kubernetes, self._ports.apiserver, "/api/v1/namespaces/default/serviceaccounts/default")
            and "the service account default/default"
        )

    def _ask(self, context: ssl.SSLContext, port: int, path: str) -> str | None:
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=REQUEST_SECONDS)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            return f"an answer on port {port} ({error})"
        finally:
            connection.close()
        if response.status == http.HTTPStatus.OK:
            return None
        failing = [line[3:].split()[0] for line in body.splitlines() if line.startswith("[-]")]
        return ", ".join(failing) or f"HTTP {response.status} to {path} to become 200"


def _context(authority: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority))
    context.load_cert_chain(certificate, key)
    return context
