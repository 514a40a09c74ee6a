"""The demo's Git repository: a namespace with one Deployment and its related objects."""

import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

from driftwatch.demo.errors import DemoError

NAMESPACE = "nginx"
NAME = "nginx"
MANIFESTS = "manifests"  # the directory in the repository that the daemon reads
DEMO_LABEL = "driftwatch.io/demo"  # distinguishes the demo's namespace from an unrelated one of the same name
AUTHOR = "Demo"
GIT_SECONDS = 30.0

FILES = {
    "namespace.yaml": f"""\
apiVersion: v1
kind: Namespace
metadata:
  name: nginx
  labels:
    {DEMO_LABEL}: "true"
""",
    "configmap.yaml": """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: nginx
  namespace: nginx
data:
  index.html: |
    <h1>Declared in Git</h1>
""",
    "deployment.yaml": """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: nginx
  namespace: nginx
  labels:
    app: nginx
    tier: web
spec:
  replicas: 2
  selector:
    matchLabels:
      app: nginx
  template:
    metadata:
      labels:
        app: nginx
    spec:
      containers:
        - name: nginx
          image: nginx:1.29-alpine
          ports:
            - containerPort: 80
          volumeMounts:
            - name: pages
              mountPath: /usr/share/nginx/html
      volumes:
        - name: pages
          configMap:
            name: nginx
""",
    "service.yaml": """\
apiVersion: v1
kind: Service
metadata:
  name: nginx
  namespace: nginx
spec:
  selector:
    app: nginx
  ports:
    - port: 80
""",
}


class DemoRepository:
    """A repository with a work tree, so that the user can edit and commit in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifests = folder / MANIFESTS

    def create(self) -> None:
        """Create the repository, or reset an earlier demo's to the example with a commit. Raises `DemoError`."""
        self.manifests.mkdir(parents=True, exist_ok=True)
        if not (self.folder / ".git").exists():
            self._git("init", "--quiet", "--initial-branch=main", "--template=")
            for name, value in (("user.name", AUTHOR), ("user.email", "demo@example.com"), ("commit.gpgsign", "false")):
                self._git("config", name, value)
        for name, content in FILES.items():
            (self.manifests / name).write_text(content, encoding="utf-8")
        self._git("add", "--all")
        if self._git("status", "--porcelain"):
            self._git("commit", "--quiet", "--message=The classic example")

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace `old` by `new` in a manifest. The change is declared only after a commit."""
        path = self.manifests / file
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(old, new), encoding="utf-8")

    def commit(self, message: str) -> str:
        """Commit all changes. Returns the commit's id."""
        self._git("commit", "--quiet", "--all", f"--message={message}")
        return self.head()

    def head(self) -> str:
        """The newest commit's id."""
        return self._git("rev-parse", "HEAD").strip()

    def declared(self) -> dict[str, dict[str, Any]]:
        """The example's objects as declared by the newest commit, not the work tree, by kind."""
        documents = [yaml.safe_load(self._git("show", f"HEAD:{MANIFESTS}/{name}")) for name in FILES]
        return {document["kind"]: document for document in documents}

    def _git(self, *arguments: str) -> str:
        # Variables such as GIT_DIR, set while a Git hook runs, would select another repository.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        try:
            done = subprocess.run(
                ["git", "-C", str(self.folder), *arguments],
                capture_output=True,
                text=True,
                timeout=GIT_SECONDS,
                check=True,
                stdin=subprocess.DEVNULL,
                env=environment,
                process_group=0,  # Ctrl-C must reach only the demo, which then cleans up
            )
        except subprocess.CalledProcessError as error:
            raise DemoError(f"git {arguments[0]} in {self.folder} failed: {error.stderr.strip()}") from error
        except subprocess.TimeoutExpired as error:
            raise DemoError(f"git {arguments[0]} in {self.folder} did not end within {GIT_SECONDS:.0f} s") from error
        except FileNotFoundError as error:
            raise DemoError("git is not on PATH: install it") from error
        return done.stdout
