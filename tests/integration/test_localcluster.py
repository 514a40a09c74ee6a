"""The local control plane is real, is private, comes back as it was, and leaves nothing running."""

import concurrent.futures
import json
import re
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time

import psutil
import pytest
from driftwatch.localcluster import Component, LocalCluster, PortTakenError, StartError, StateError, layout

from tests.support.audit import AuditTrail
from tests.support.kubectl import Kubectl

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: example.org/web}]}
"""


def driftwatch(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "driftwatch", "cluster", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def pids(cluster):
    return {item.component: item.pid for item in cluster.status().components}


def running(directory):
    """Whatever runs for the cluster in `directory`, recorded or not."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        command = process.info["cmdline"] or []
        if process.info["status"] != psutil.STATUS_ZOMBIE and any(f"{directory}/" in word for word in command):
            found.append(process)
    return found


def wait_until(condition, what, seconds=15.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.fixture
def directory(tmp_path):
    """A folder for a cluster of the test's own, which is stopped whatever happens."""
    directory = tmp_path / "own"
    yield directory
    LocalCluster(directory).down(delete=True)
    assert not running(directory)


def test_versions_are_understood_by_kubectl(kubectl):
    """Programs without a proper version stamp make kubectl complain about a skew it cannot compute."""
    done = kubectl("version", "-o", "json")
    versions = json.loads(done.stdout)

    assert re.fullmatch(r"v1\.\d+\.\d+", versions["serverVersion"]["gitVersion"])
    assert versions["clientVersion"]["gitVersion"] == versions["serverVersion"]["gitVersion"]
    assert done.stderr == ""


def test_everything_in_the_folder_is_private(cluster):
    """Keys, the store and the audit log are for their owner only."""
    for path in [cluster.directory, *cluster.directory.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_controllers_run(kubectl, namespace):
    """A Deployment gets its ReplicaSet and that its pods, under the controllers' own names; a namespace goes away."""
    kubectl("create", "namespace", namespace)
    kubectl("apply", "-n", namespace, "-f", "-", input=DEPLOYMENT)

    kubectl("wait", "-n", namespace, "--for=create", "pod", "-l", "app=web", "--timeout=15s")
    kubectl("delete", "namespace", namespace, "--timeout=30s")

    assert kubectl("get", "namespace", namespace, check=False).returncode == 1


def test_rbac_is_on(kubectl):
    """Whoever was not allowed something is refused it."""
    done = kubectl("get", "secrets", "--as=somebody", check=False)

    assert "Forbidden" in done.stderr


def test_audit_log_says_who_did_what(kubectl, namespace, audit):
    """A request is in the log with user, agent, verb and code, once; the server's own are not."""
    kubectl("create", "namespace", namespace)

    (event,) = audit.wait(agent="kubectl/", verb="create", resource="namespaces", name=namespace)

    assert event["user"]["username"] == "driftwatch-admin"
    assert (event["stage"], event["responseStatus"]["code"]) == ("ResponseComplete", 201)
    assert audit.events(user="system:apiserver") == []


def test_store_refuses_clients_of_the_api(cluster):
    """Credentials for the API are none for etcd, which knows no RBAC."""
    pki = layout.Layout(cluster.directory).pki
    port = json.loads((cluster.directory / "cluster.json").read_text())["ports"]["etcd"]
    context = ssl.create_default_context(cafile=str(pki / "etcd-ca.crt"))
    context.load_cert_chain(pki / "admin.crt", pki / "admin.key")

    with (  # noqa: PT012 - with TLS 1.3 the refusal comes with the first read
        pytest.raises((ssl.SSLError, ConnectionError)),
        socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        connection.recv(100)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_api_server_alone_can_be_killed_and_started(cluster, kubectl, number):
    """For tests of faults: the store and its content stay."""
    before = pids(cluster)
    cluster.kill(Component.APISERVER, number)
    try:
        assert not cluster.status().running
        assert kubectl("get", "namespaces", check=False).returncode == 1
    finally:
        cluster.start(Component.APISERVER)

    after = pids(cluster)
    assert cluster.status().running
    assert after[Component.ETCD] == before[Component.ETCD]
    assert after[Component.APISERVER] != before[Component.APISERVER]
    assert "kube-system" in kubectl("get", "namespaces").stdout


def test_cluster_is_resumed_from_the_command_line(cluster, directory, tmp_path):
    """`up` leaves it running beside another one, `down` stops it, `up` has the same data on the same port again."""
    up = driftwatch("up", "--dir", str(directory))
    assert up.returncode == 0, up.stderr
    assert up.stdout == f"{directory}/kubeconfig\n"
    status = driftwatch("status", "--dir", str(directory), "--output", "json")
    assert status.returncode == 0
    first = json.loads(status.stdout)
    assert first["server"] != cluster.server
    assert cluster.status().running
    kubectl = Kubectl(first["kubectl"], directory / "kubeconfig", tmp_path)
    kubectl("create", "configmap", "kept", "--from-literal=a=b")

    assert driftwatch("up", "--dir", str(directory)).returncode == 0
    assert json.loads(driftwatch("status", "--dir", str(directory), "-o", "json").stdout) == first

    assert driftwatch("down", "--dir", str(directory)).returncode == 0
    assert running(directory) == []
    stopped = driftwatch("status", "--dir", str(directory))
    assert stopped.returncode == 3
    assert stopped.stdout.count("stopped") == 3

    # Resumed through Python, attached to this process: the folder is all there is to a cluster.
    resumed = LocalCluster(directory)
    resumed.up()
    assert resumed.server == first["server"]
    assert kubectl("get", "configmap", "kept", "-o", "jsonpath={.data.a}").stdout == "b"
    assert AuditTrail(resumed.audit_log).wait(0) == []

    assert driftwatch("down", "--dir", str(directory), "--delete").returncode == 0
    assert not directory.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's signal at a parent's death is Linux's")
def test_nothing_survives_a_crash_of_the_parent(directory):
    """After SIGKILL of the process that started it no component runs; the data is there for the next start."""
    source = f"""
import time
from driftwatch.localcluster import LocalCluster
LocalCluster({str(directory)!r}).up()
print("up", flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout.readline() == "up\n"
        assert len(running(directory)) == 3
        parent.kill()

    wait_until(lambda: not running(directory), "components survive their parent", 5.0)
    assert not LocalCluster(directory).status().running


def test_taken_port_is_named_and_the_rest_stopped(directory):
    """The port of a stopped cluster can be taken; the message names it, and nothing is left half started."""
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        port = somebody.getsockname()[1]

        with pytest.raises(PortTakenError, match=f"port {port} "):
            LocalCluster(directory).up(port=port)

    assert running(directory) == []


def test_component_that_ends_shows_its_last_words(directory):
    """The operator sees why, and where to read more."""
    cluster = LocalCluster(directory)
    directory.mkdir(mode=0o700)
    (directory / ".lock").touch(mode=0o600)
    (directory / "etcd").mkdir(mode=0o700)
    (directory / "etcd" / "member").write_text("not a folder")

    with pytest.raises(StartError, match="etcd ended while starting") as error:
        cluster.up()

    assert str(cluster.log(Component.ETCD)) in str(error.value)
    assert "not a directory" in str(error.value)
    assert running(directory) == []


def test_folder_with_other_files_is_refused(tmp_path):
    """A folder that is somebody's is neither filled nor, later, emptied."""
    (tmp_path / "thesis.txt").write_text("precious")

    with pytest.raises(StateError, match="holds other files"):
        LocalCluster(tmp_path).up()
    LocalCluster(tmp_path).down(delete=True)

    assert [item.name for item in tmp_path.iterdir()] == ["thesis.txt"]


def test_folder_without_a_cluster_is_not_running(tmp_path):
    """Looking does not create anything."""
    done = driftwatch("status", "--dir", str(tmp_path / "none"))

    assert done.returncode == 3
    assert "holds no cluster" in done.stdout
    assert not (tmp_path / "none").exists()


def test_recycled_process_id_is_not_killed(directory):
    """After a reboot the recorded ids belong to others."""
    with subprocess.Popen(["/bin/sleep", "60"]) as stranger:
        directory.mkdir(mode=0o700)
        recorded = {"pid": stranger.pid, "started": psutil.Process(stranger.pid).create_time(), "program": "/etcd"}
        ports = {"apiserver": 1, "controller_manager": 2, "etcd": 3, "etcd_peer": 4}
        (directory / "cluster.json").write_text(json.dumps({"ports": ports, "processes": {"etcd": recorded}}))

        LocalCluster(directory).down(delete=True)

        assert stranger.poll() is None
        stranger.kill()
    assert not directory.exists()


def test_clusters_start_at_the_same_time(tmp_path):
    """Each has its own folder and ports."""
    clusters = [LocalCluster(tmp_path / name) for name in "ab"]
    try:
        with concurrent.futures.ThreadPoolExecutor() as pool:
            list(pool.map(LocalCluster.up, clusters))

        assert all(cluster.status().running for cluster in clusters)
        assert clusters[0].server != clusters[1].server
    finally:
        for cluster in clusters:
            cluster.down(delete=True)
