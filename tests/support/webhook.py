"""Webhooks: one that admits makes writes wait, refuses or changes them; another converts custom resources."""

import base64
import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.live import Live
from tests.support.manifests import manifest
from tests.support.self_signed import write_pair

LONGEST = 10  # seconds that the API server waits for the answer


class Gate:
    """`reached` is set when a write waits; `open` lets it and all others go on."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._open = threading.Event()

    def open(self) -> None:
        """Let every write go on."""
        self._open.set()

    def wait(self) -> None:
        """What a write does here."""
        self.reached.set()
        self._open.wait(LONGEST)


Answer = Callable[[dict[str, Any]], dict[str, Any]]
"""What a webhook says to a request of an AdmissionReview: its `response`, but for the uid."""


@contextmanager
def gate(live: Live, folder: Path, namespace: str) -> Iterator[Gate]:
    """Make the writes of ConfigMaps in a namespace wait at a gate."""
    found = Gate()

    def answer(_request: dict[str, Any]) -> dict[str, Any]:
        found.wait()
        return {"allowed": True}

    with webhook(live, folder, namespace, answer):
        try:
            yield found
        finally:
            found.open()


@contextmanager
def webhook(
    live: Live, folder: Path, namespace: str, answer: Answer, *, mutating: bool = False, timeout: int = LONGEST
) -> Iterator[None]:
    """Have the writes of ConfigMaps in a namespace asked about: validated, or mutated."""

    def review(asked: dict[str, Any]) -> dict[str, Any]:
        return {"uid": asked["request"]["uid"], **answer(asked["request"])}

    with _https(folder, review) as port:
        hook = _configuration(namespace, port, certificate_of(folder), mutating=mutating, timeout=timeout)
        try:
            live.patch(hook, hook, manager="tests", kind="apply")
            yield
        finally:
            live.request("DELETE", live.path(hook))


Convert = Callable[[dict[str, Any], str], dict[str, Any]]
"""Makes an object of a custom kind one of the other apiVersion; an exception is the failure that the webhook names."""


@contextmanager
def conversion(folder: Path, convert: Convert) -> Iterator[dict[str, Any]]:
    """Serve conversions; gives the `spec.conversion` of a CustomResourceDefinition that asks for them here."""

    def review(asked: dict[str, Any]) -> dict[str, Any]:
        request = asked["request"]
        try:
            converted = [convert(one, request["desiredAPIVersion"]) for one in request["objects"]]
        except ValueError as error:
            return {"uid": request["uid"], "result": {"status": "Failure", "message": str(error)}}
        return {"uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": converted}

    with _https(folder, review) as port:
        client = {"url": f"https://127.0.0.1:{port}/", "caBundle": _encoded(certificate_of(folder))}
        yield {"strategy": "Webhook", "webhook": {"clientConfig": client, "conversionReviewVersions": ["v1"]}}


@contextmanager
def _https(folder: Path, review: Answer) -> Iterator[int]:
    """Answer reviews over HTTPS, with a certificate that is its own authority; gives the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            content = json.dumps({**asked, "response": review(asked)}).encode()
            with contextlib.suppress(OSError):  # the API server may have gone away meanwhile
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    certificate(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "webhook.crt", folder / "webhook.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def _configuration(namespace: str, port: int, authority: bytes, *, mutating: bool, timeout: int) -> dict:
    bundle = _encoded(authority)
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE", "UPDATE"]}
    hook = {
        "name": "gate.example.com",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "timeoutSeconds": timeout,
        "clientConfig": {"url": f"https://127.0.0.1:{port}/", "caBundle": bundle},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "rules": [rule],
    }
    kind = "MutatingWebhookConfiguration" if mutating else "ValidatingWebhookConfiguration"
    return manifest("admissionregistration.k8s.io/v1", kind, namespace, webhooks=[hook])


def certificate(folder: Path) -> bytes:
    """Make a certificate for 127.0.0.1 that is its own authority: webhook.crt and webhook.key in the folder."""
    write_pair(folder / "webhook.crt", folder / "webhook.key", "gate")
    return certificate_of(folder)


def certificate_of(folder: Path) -> bytes:
    """The certificate that was made in the folder."""
    return (folder / "webhook.crt").read_bytes()


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()
