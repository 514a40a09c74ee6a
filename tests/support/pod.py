"""The Pod of a Deployment as the kubelet would make it, without a kubelet: its volumes are folders on this machine."""

import contextlib
import ssl
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

Objects = list[dict[str, Any]]
Secrets = Mapping[str, Mapping[str, str]]


class Pod:
    """What the container of the one Deployment among `objects` has: `secrets` are the Secrets of its namespace."""

    def __init__(self, objects: Objects, secrets: Secrets, folder: Path) -> None:
        [deployment] = [each for each in objects if each["kind"] == "Deployment"]
        self._spec = deployment["spec"]["template"]["spec"]
        [self._container] = self._spec["containers"]
        self._secrets = secrets
        self._maps = {each["metadata"]["name"]: each["data"] for each in objects if each["kind"] == "ConfigMap"}
        self._folders: dict[PurePosixPath, Path] = {}
        volumes = {each["name"]: each for each in self._spec["volumes"]}
        for mount in self._container["volumeMounts"]:
            here = folder / mount["name"]
            here.mkdir()
            for name, content in self._content(volumes[mount["name"]]).items():
                (here / name).write_text(content)
            self._folders[PurePosixPath(mount["mountPath"])] = here

    def _content(self, volume: dict[str, Any]) -> Mapping[str, str]:
        if "configMap" in volume:
            found: Mapping[str, str] = self._maps[volume["configMap"]["name"]]
            return found
        if "secret" in volume:
            name = volume["secret"]["secretName"]
            assert name in self._secrets or volume["secret"].get("optional"), f"there is no Secret {name}"
            return self._secrets.get(name, {})
        return {}

    @property
    def port(self) -> int:
        """The port that probes and Service ask for by its name."""
        [port] = self._container["ports"]
        return int(port["containerPort"])

    @property
    def configuration(self) -> dict[str, Any]:
        """The configuration that `run` is given, with each file where it is on this machine."""
        [file] = [each.removeprefix("--config=") for each in self._container["args"] if each.startswith("--config=")]
        found: dict[str, Any] = self._moved(yaml.safe_load(self.here(file).read_text()))
        return found

    @property
    def environment(self) -> dict[str, str]:
        """The variables of the container, those from Secrets among them."""
        found = {}
        for each in self._container.get("env", []):
            chosen = each.get("valueFrom", {}).get("secretKeyRef", {})
            found[each["name"]] = each["value"] if "value" in each else self._secrets[chosen["name"]][chosen["key"]]
        return found

    def here(self, path: str) -> Path:
        """Where a file of the container is; fails where no mount has it: the root is the image's, and read-only."""
        for mount, folder in self._folders.items():
            if PurePosixPath(path).is_relative_to(mount):
                return folder / PurePosixPath(path).relative_to(mount)
        raise AssertionError(f"{path} is on no volume of the Pod")

    def may_write(self, path: str) -> bool:
        """Whether a file of the container is on a volume that is not mounted to be read only."""
        mounts = {
            PurePosixPath(each["mountPath"]) for each in self._container["volumeMounts"] if "readOnly" not in each
        }
        return any(PurePosixPath(path).is_relative_to(mount) for mount in mounts)

    def _moved(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._moved(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._moved(each) for each in value]
        return str(self.here(value)) if isinstance(value, str) and value.startswith("/") else value

    def probe(self, name: str, port: int) -> int:
        """What the kubelet gets, whose daemon listens on `port` of this machine: it has no token and checks nothing."""
        asked = self._container[name]["httpGet"]
        assert asked["port"] in {each["name"] for each in self._container["ports"]}
        scheme = asked.get("scheme", "HTTP").lower()
        return ask(scheme, port, asked["path"], _trusting_anybody())


def ask(scheme: str, port: int, path: str, context: ssl.SSLContext, token: str = "") -> int:
    """The code of an answer on this machine."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    if scheme == "https":
        connection = HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
    with contextlib.closing(connection):
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
        return connection.getresponse().status


def _trusting_anybody() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
