"""What is in the API server, by plain requests; and whether it is what Git says."""

import base64
import copy
import json
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3
import yaml

from tests.support.waiting import until

Manifest = dict[str, Any]

_DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_TRACKING = "driftwatch.io/"
ANSWER_SECONDS = 30.0  # longer than an admission webhook of the tests may take
_NOT_COMPARED = ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp")


class _Context(ssl.SSLContext):
    """Closes what was reset before TLS began: `ssl` takes it for a socket to be connected later, urllib3 forgets it."""

    def wrap_socket(self, *arguments: Any, **options: Any) -> ssl.SSLSocket:
        """Wrap a socket that is connected."""
        wrapped = super().wrap_socket(*arguments, **options)
        try:
            wrapped.getpeername()
        except OSError:
            wrapped.close()
            raise
        return wrapped


class Live:
    """The API server as its administrator sees it. Objects are named by their manifests."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        files = {
            "ca_certs": cluster["certificate-authority-data"],
            "cert_file": user["client-certificate-data"],
            "key_file": user["client-key-data"],
        }
        for name, data in files.items():
            (folder / name).write_bytes(base64.b64decode(data))
        self._server = cluster["server"]
        context = _Context(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(folder / "ca_certs")
        context.load_cert_chain(folder / "cert_file", folder / "key_file")
        self._pool = urllib3.PoolManager(maxsize=4, timeout=ANSWER_SECONDS, ssl_context=context)
        self._kinds: dict[tuple[str, str], tuple[str, bool]] = {}

    def close(self) -> None:
        """Close every connection."""
        self._pool.clear()

    def request(
        self, method: str, path: str, body: object = None, *, media_type: str = "application/json", accept: str = ""
    ) -> tuple[int, dict[str, Any]]:
        """Send one request. Returns the code and the answer."""
        answer = self._pool.request(
            method,
            self._server + path,
            body=None if body is None else json.dumps(body),
            headers={"Content-Type": media_type, "Accept": accept or "application/json", "User-Agent": "tests"},
            retries=False,
        )
        try:
            return answer.status, answer.json()
        except ValueError:  # a path that is not served is answered in plain text
            return answer.status, {"message": answer.data.decode()}

    def path(self, manifest: Manifest) -> str:
        """The object's path; a manifest of a namespaced kind names its namespace.

        A kind whose definition has just been created is waited for: until it is established nobody can discover it.
        """
        api_version, metadata = manifest["apiVersion"], manifest["metadata"]
        plural, namespaced = self._kinds.get((api_version, manifest["kind"])) or until(
            lambda: self._discover().get((api_version, manifest["kind"])), f"{manifest['kind']}.{api_version} is served"
        )
        root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
        where = f"/namespaces/{metadata['namespace']}" if namespaced else ""
        return f"{root}{where}/{plural}/{metadata['name']}"

    def _discover(self) -> dict[tuple[str, str], tuple[str, bool]]:
        for root in ("/api", "/apis"):
            _, found = self.request("GET", root, accept=_DISCOVERY)
            for group in found["items"]:
                for version in group["versions"]:
                    name = group["metadata"].get("name", "")
                    api_version = f"{name}/{version['version']}" if name else version["version"]
                    for resource in version["resources"]:
                        kind = resource["responseKind"]["kind"]
                        self._kinds[api_version, kind] = resource["resource"], resource["scope"] == "Namespaced"
        return self._kinds

    def get(self, manifest: Manifest) -> dict[str, Any] | None:
        """The live object, None where there is none."""
        code, found = self.request("GET", self.path(manifest))
        assert code in (200, 404), found
        return found if code == 200 else None

    def uid(self, manifest: Manifest) -> str:
        """Uid of the live object, "" where there is none."""
        found = self.get(manifest)
        return found["metadata"]["uid"] if found else ""

    def patch(self, manifest: Manifest, patch: object, *, manager: str = "", kind: str = "merge") -> dict[str, Any]:
        """Patch the live object: `kind` is merge, strategic-merge, json or apply."""
        query = {"fieldManager": manager} if manager else {}
        media_type = f"application/{kind}-patch+{'yaml' if kind == 'apply' else 'json'}"
        if kind == "apply":
            query["force"] = "true"
        code, found = self.request("PATCH", f"{self.path(manifest)}?{urlencode(query)}", patch, media_type=media_type)
        assert code in (200, 201), found
        return found

    def difference(self, manifest: Manifest, source: str) -> str:
        """How the live object differs from Git, "" where it does not.

        In sync means that a dry run of the manifest's server-side apply changes nothing, and that the object is ours.
        """
        live = self.get(manifest)
        name = f"{manifest['kind']} {manifest['metadata']['name']}"
        if live is None or "deletionTimestamp" in live["metadata"]:
            return f"{name} is not there, or is being deleted"
        if wrong := _untracked(live["metadata"], source):
            return f"{name}: {wrong}"
        # Without the tracking label the defaults of some kinds would be others: a Job without labels takes its Pods'.
        body = copy.deepcopy(manifest)
        for field in ("labels", "annotations"):
            ours = {key: text for key, text in live["metadata"][field].items() if key.startswith(_TRACKING)}
            body["metadata"][field] = body["metadata"].get(field, {}) | ours
        query = urlencode({"fieldManager": "driftwatch", "force": "true", "dryRun": "All"})
        code, applied = self.request(
            "PATCH", f"{self.path(manifest)}?{query}", body, media_type="application/apply-patch+yaml"
        )
        if code != 200:
            return f"{name} cannot be applied: {applied.get('message')}"
        if _compared(applied) != _compared(live):
            return f"{name} differs; Git: {_compared(applied)}\nlive: {_compared(live)}"
        return ""


def _untracked(metadata: dict[str, Any], source: str) -> str:
    """What is wrong with the tracking label and annotations, "" where nothing is."""
    label = metadata.get("labels", {}).get("driftwatch.io/source")
    if label != source:
        return f"is labelled as of {label}"
    missing = {"driftwatch.io/id", "driftwatch.io/desired-hash"} - metadata.get("annotations", {}).keys()
    if missing:
        return f"lacks {missing}"
    ours = (
        each
        for each in metadata.get("managedFields", [])
        if (each["manager"], each["operation"]) == ("driftwatch", "Apply")
    )
    owned = next(ours, {"fieldsV1": {}})["fieldsV1"].get("f:metadata", {}).get("f:annotations", {})
    return "" if "f:driftwatch.io/desired-hash" in owned else "has a hash that somebody else wrote"


def _compared(found: dict[str, Any]) -> dict[str, Any]:
    """An object without what every write changes, and what the server reports."""
    value = copy.deepcopy(found)
    value.pop("status", None)
    metadata = value["metadata"]
    for field in _NOT_COMPARED:
        metadata.pop(field, None)
    return value
