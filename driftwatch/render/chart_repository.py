"""Fetches charts from a chart repository, HTTP or OCI, and keeps them in the source's mirror.

A version is fetched only once, so a restart without network has everything it needs. A version range is resolved
again at an interval. While the repository does not answer, the chart resolved last is used and the failure is
reported.
"""

import base64
import hashlib
import re
import shutil
import time
from pathlib import Path

import yaml

from driftwatch.files import write_private
from driftwatch.git.errors import RenderError
from driftwatch.render.cache import Store
from driftwatch.render.error_location import summary
from driftwatch.render.sandbox import Sandbox, ToolFailed, Workspace
from driftwatch.source_spec import HelmSpec

_EXACT = re.compile(r"v?\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")
_MAX_BYTES = 64 * 2**20
_NAME = "driftwatch"


class Charts:
    """The chart that a source names in a chart repository."""

    def __init__(self, spec: HelmSpec, store: Store) -> None:
        self._spec = spec
        self._store = store
        self._asked = 0.0
        self.trouble = ""
        """Why the chart repository could not be read; "" if it could."""
        named = f"{spec.repository}\0{spec.chart}\0{spec.version}"
        self.key = hashlib.blake2b(named.encode(), digest_size=16).hexdigest()

    @property
    def is_due(self) -> bool:
        """Whether it is time to resolve the version at the repository (again)."""
        return not _EXACT.fullmatch(self._spec.version) and (
            not self._asked or time.monotonic() - self._asked > self._spec.chart_interval
        )

    def current(self, helm: Path, sandbox: Sandbox, workspace: Workspace) -> str:
        """The blob of the chart's archive. Raises `RenderError` if none is cached and none can be fetched."""
        have = self._store.chart(self.key)
        if have is not None and not self.is_due and not self.trouble:
            return have
        try:
            archive = self._fetch(helm, sandbox, workspace)
        except RenderError as error:
            if have is None:
                raise
            self.trouble = f"{error}; the chart that was fetched last stays in use"
            return have
        self.trouble = ""
        self._asked = time.monotonic()
        return self._store.keep_chart(self.key, archive)

    def _fetch(self, helm: Path, sandbox: Sandbox, workspace: Workspace) -> bytes:
        spec = self._spec
        what = f"chart {spec.chart} {spec.version} of {spec.repository}"
        out = workspace.folder / "chart"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        try:
            if spec.repository.startswith("oci://"):
                self._pull_oci(helm, sandbox, workspace, out)
            else:
                self._pull_http(helm, sandbox, workspace, out)
        except ToolFailed as failure:
            # `helm repo update` prints the repository's answer to standard output.
            answer = summary(f"{failure.stderr}\n{failure.output}")
            raise RenderError(f"{what} cannot be fetched: {answer}", passes=True) from failure
        except RenderError as error:
            raise RenderError(f"{what} cannot be fetched: {error}", passes=True) from error
        except OSError as error:
            raise RenderError(f"{what} cannot be fetched: {error.strerror}: {error.filename}", passes=True) from error
        archives = list(out.glob("*.tgz"))
        if len(archives) != 1:
            raise RenderError(f"{what}: helm fetched {len(archives)} archives instead of one")
        if archives[0].stat().st_size > _MAX_BYTES:
            raise RenderError(f"{what} is larger than {_MAX_BYTES >> 20} MB")
        return archives[0].read_bytes()

    def _pull_oci(self, helm: Path, sandbox: Sandbox, workspace: Workspace, out: Path) -> None:
        spec = self._spec
        command = [str(helm), "pull", f"{spec.repository}/{spec.chart}", f"--version={spec.version}"]
        if spec.plain_http:
            command.append("--plain-http")
        if spec.ca_file:
            command.append(f"--ca-file={spec.ca_file}")
        if spec.username:
            host = spec.repository.removeprefix("oci://").partition("/")[0]
            word = base64.b64encode(f"{spec.username}:{self._password()}".encode()).decode()
            file = workspace.folder / "registry.json"
            write_private(file, yaml.safe_dump({"auths": {host: {"auth": word}}}, default_flow_style=True).encode())
            command.append(f"--registry-config={file}")
        sandbox.run([*command, f"--destination={out}"], workspace, out, network=True)

    def _pull_http(self, helm: Path, sandbox: Sandbox, workspace: Workspace, out: Path) -> None:
        spec = self._spec
        entry = {"name": _NAME, "url": spec.repository, "caFile": spec.ca_file}
        if spec.username:
            entry |= {"username": spec.username, "password": self._password()}
        file = workspace.folder / "repositories.yaml"
        write_private(file, yaml.safe_dump({"apiVersion": "v1", "repositories": [entry]}).encode())
        options = [f"--repository-config={file}", f"--repository-cache={workspace.folder / 'repositories'}"]
        sandbox.run([str(helm), "repo", "update", *options], workspace, out, network=True)
        command = [str(helm), "pull", f"{_NAME}/{spec.chart}", f"--version={spec.version}", *options]
        sandbox.run([*command, f"--destination={out}"], workspace, out, network=True)

    def _password(self) -> str:
        return Path(self._spec.password_file).read_text().strip()
