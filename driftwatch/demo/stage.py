"""Sets up and removes what the demo needs: directory, cluster, Git repository and daemon.

Everything is removed however the demo ends.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from driftwatch.demo.daemon import Daemon
from driftwatch.demo.errors import DemoError
from driftwatch.demo.kubectl import Kubectl
from driftwatch.demo.repository import DEMO_LABEL, NAMESPACE, DemoRepository
from driftwatch.localcluster import LocalCluster, Progress, ensure_binaries

GOODBYE_SECONDS = 120.0  # for the namespace's deletion on a cluster that runs its Pods

Consent = Callable[[str, str], None]


class Folder:
    """The demo's directory. With `keep`, the files that explain a failure stay in a temporary directory."""

    explaining = ("driftwatch.log", "driftwatch.yaml", "repository")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keep = False

    def clear(self) -> None:
        """Remove the directory, or all files in it that explain no failure."""
        for item in self.path.iterdir():
            if self.keep and item.name in self.explaining:
                continue
            if item.is_dir() and not item.is_symlink():
                shutil.rmtree(item, ignore_errors=True)
            else:
                item.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # some files are kept
            self.path.rmdir()


@dataclass
class Stage:
    """The demo's cluster, repository and daemon. `tidy` becomes false if something could not be removed."""

    folder: Folder
    kubectl: Kubectl
    repository: DemoRepository
    daemon: Daemon
    kubeconfig: Path | None
    context: str | None
    server: str
    tidy: bool = True


@contextmanager
def local_stage(directory: Path | None, progress: Progress) -> Iterator[Stage]:
    """A local control plane, in a temporary directory that is removed, or in `directory`, which is kept."""
    with _folder(directory) as folder:
        cluster = LocalCluster(folder.path / "cluster", progress)
        path = cluster.binaries.kubectl
        progress.note("Starting a control plane: etcd, kube-apiserver, kube-controller-manager.")
        try:
            cluster.up()
            kubectl = Kubectl(path, [f"--kubeconfig={cluster.kubeconfig}"], folder.path / "kubectl-cache")
            stage = _stage(folder, kubectl, cluster.kubeconfig, None, cluster.server)
            try:
                yield stage
            finally:
                stage.daemon.stop()
        finally:
            cluster.down(delete=directory is None)


@contextmanager
def guest_stage(
    directory: Path | None, kubeconfig: Path | None, context: str | None, progress: Progress, consent: Consent
) -> Iterator[Stage]:
    """A cluster of the user. `consent` gets its address and context, and raises if the demo may not use it."""
    with _folder(directory) as folder:
        # A user with a cluster usually has kubectl, so nothing needs compiling.
        found = shutil.which("kubectl")
        path = Path(found) if found else ensure_binaries(progress).kubectl
        options = [f"--kubeconfig={kubeconfig}"] if kubeconfig else []
        options += [f"--context={context}"] if context else []
        kubectl = Kubectl(path, options, folder.path / "kubectl-cache")
        server, named = kubectl.server()
        consent(server, named)
        _require_ours(kubectl)
        stage = _stage(folder, kubectl, kubeconfig, context, server)
        try:
            yield stage
        finally:
            _leave(stage, progress)


def _stage(folder: Folder, kubectl: Kubectl, kubeconfig: Path | None, context: str | None, server: str) -> Stage:
    repository = DemoRepository(folder.path / "repository")
    repository.create()
    daemon = Daemon(folder.path, repository.folder, str(kubeconfig) if kubeconfig else None, context)
    return Stage(folder, kubectl, repository, daemon, kubeconfig, context, server)


@contextmanager
def _folder(directory: Path | None) -> Iterator[Folder]:
    if directory is not None:
        path = directory.absolute()
        if path.is_dir() and any(path.iterdir()) and not (path / "repository" / ".git").exists():
            raise DemoError(f"{path} holds other files: name an empty folder, one that does not exist, or a demo's")
        path.mkdir(parents=True, exist_ok=True)
        yield Folder(path)
        return
    folder = Folder(Path(tempfile.mkdtemp(prefix="driftwatch-demo-")))
    try:
        yield folder
    finally:
        folder.clear()


def _require_ours(kubectl: Kubectl) -> None:
    namespace = kubectl.namespace()
    if namespace is None:
        return
    metadata = namespace["metadata"]
    if metadata.get("labels", {}).get(DEMO_LABEL) != "true":
        raise DemoError(
            f"the cluster has a namespace {NAMESPACE} that is not the demo's, and the demo would break what is in it: "
            "choose another cluster, or none, and the demo starts one of its own"
        )
    if "deletionTimestamp" in metadata:
        raise DemoError(f"the namespace {NAMESPACE} of an earlier demo is still being deleted: try again in a moment")


def _leave(stage: Stage, progress: Progress) -> None:
    """Stop the daemon, which would restore the namespace, then remove the namespace from the user's cluster."""
    try:
        stage.daemon.stop()
        namespace = stage.kubectl.namespace()
        if namespace is None or namespace["metadata"].get("labels", {}).get(DEMO_LABEL) != "true":
            return
        progress.note(f"Removing the namespace {NAMESPACE} from {stage.server}.")
        stage.kubectl.run("delete", "namespace", NAMESPACE, seconds=GOODBYE_SECONDS)
    except (DemoError, TimeoutError) as error:
        stage.folder.keep = True
        stage.tidy = False
        progress.note(f"The namespace {NAMESPACE} may still be on {stage.server}; delete it by hand: {error}")
