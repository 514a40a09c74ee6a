"""A service account as a Pod has it: a token in a file that is replaced before it ends, and no more than a role."""

import base64
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.support.fork_server import run
from tests.support.kubectl import Kubectl
from tests.support.waiting import until

Rules = list[dict[str, Any]]


class Account:
    """A service account of a namespace that is there, and a kubeconfig file for it."""

    def __init__(self, kubectl: Kubectl, folder: Path, namespace: str, name: str = "driftwatch") -> None:
        self._kubectl = kubectl
        self.namespace = namespace
        self.name = name
        self.token_file = folder / "token"
        self.certificate_file = folder / "ca.crt"
        self.kubeconfig = folder / "kubeconfig"
        cluster = yaml.safe_load(kubectl.kubeconfig.read_text())["clusters"][0]["cluster"]
        self.server: str = cluster["server"]
        self.certificate_file.write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
        self.rotate()
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "account",
            "clusters": [{"name": "account", "cluster": cluster}],
            "contexts": [{"name": "account", "context": {"cluster": "account", "user": "account"}}],
            "users": [{"name": "account", "user": {"tokenFile": "token"}}],
        }
        self.kubeconfig.write_text(yaml.safe_dump(document))

    @property
    def user(self) -> str:
        """Its name to the API server."""
        return f"system:serviceaccount:{self.namespace}:{self.name}"

    def rotate(self) -> str:
        """Put a new token into the file, as the kubelet does: ten minutes is the shortest that there is."""
        token = self._kubectl("create", "token", self.name, "-n", self.namespace, "--duration=10m").stdout.strip()
        self.put(token)
        return token

    def put(self, token: str) -> None:
        """Replace what the file has."""
        new = self.token_file.with_suffix(".new")
        new.write_text(token)
        new.replace(self.token_file)

    def grant(self, objects: list[dict[str, Any]]) -> None:
        """Apply roles and bindings, and wait until they hold: the authorizer learns of them by its own watch."""
        self._kubectl("apply", "-f", "-", input=yaml.safe_dump_all(objects))
        for role in objects:
            for rule in role.get("rules", [])[-1:]:
                resource = f"{rule['resources'][0]}.{rule['apiGroups'][0]}".rstrip(".")
                name = rule.get("resourceNames", [""])[0]
                self.wait_can(rule["verbs"][-1], f"{resource}/{name}".rstrip("/"), role["metadata"].get("namespace"))

    def wait_can(self, verb: str, resource: str, namespace: str | None = None, *, answer: bool = True) -> None:
        """Wait until the account may do something, or no more."""
        where = ["-n", namespace] if namespace else ["--all-namespaces"]

        def can() -> bool:
            asked = self._kubectl("auth", "can-i", verb, resource, *where, f"--as={self.user}", check=False)
            return asked.stdout.strip() == "yes"

        until(lambda: can() is answer, f"{self.user} can {verb} {resource}: {answer}")


def run_rbac(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`driftwatch rbac` as an operator calls it."""
    return run("rbac", *arguments, warnings_are="default", timeout=60)


def printed_roles(
    configuration: dict[str, Any], folder: Path, account: Account, name: str, *flags: str
) -> list[dict[str, Any]]:
    """The roles and bindings that `driftwatch rbac` prints for a configuration, called `name`."""
    file = folder / "for-rbac.yaml"
    file.write_text(yaml.safe_dump(configuration))
    done = run_rbac(
        f"--config={file}",
        f"--name={name}",
        f"--namespace={account.namespace}",
        f"--service-account={account.name}",
        *flags,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return list(yaml.safe_load_all(done.stdout))
