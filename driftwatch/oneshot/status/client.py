"""Client for the daemon's status, at an address or in its Pod through the API server.

Through the API server there are two ways. The Pod proxy costs one more request and needs no other program. It removes
the header with the token, and the daemon must listen on the Pod's address. `kubectl port-forward` has neither limit.
It is used if the proxy does not work.
"""

import asyncio
import contextlib
import re
import shutil
import ssl
from typing import Protocol
from urllib.parse import quote, urlencode

import aiohttp
import msgspec

from driftwatch.cluster.errors import ClusterError
from driftwatch.cluster.session import Session
from driftwatch.status.schema import Status

PATH = "/api/v1/status"
TIMEOUT = 10.0  # seconds for one answer
FORWARD_TIMEOUT = 15.0  # seconds for kubectl to start forwarding
MAX_BYTES = 64 * 1024 * 1024

_FORWARDING = re.compile(rb"Forwarding from 127\.0\.0\.1:(\d+) ")
_decode = msgspec.json.Decoder(Status).decode


class CannotReach(Exception):
    """No daemon answered. The message says why and what to do."""


class Connection(Protocol):
    """A connection to a daemon."""

    async def fetch(self) -> bytes:
        """Fetch the status document as JSON. Raises `CannotReach`."""

    async def close(self) -> None:
        """Close the connection."""


class Direct:
    """Connection to a daemon at an address, for example `http://127.0.0.1:9464`."""

    def __init__(self, address: str, token: str = "", ca_file: str | None = None, *, checks_name: bool = True) -> None:
        self.address = address.rstrip("/")
        context: ssl.SSLContext | bool = True
        if ca_file is not None or not checks_name:
            try:
                context = ssl.create_default_context(cafile=ca_file)
            except OSError as error:
                raise CannotReach(f"certificate authorities {ca_file}: {error.strerror or error}") from error
            context.check_hostname = checks_name
        self._http = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=TIMEOUT),
            headers={"Authorization": f"Bearer {token}"} if token else {},
            connector=aiohttp.TCPConnector(ssl=context),
        )

    async def fetch(self) -> bytes:
        """Fetch the status document as JSON. Raises `CannotReach`."""
        try:
            async with self._http.get(self.address + PATH, allow_redirects=False) as answer:
                if answer.status != 200:  # noqa: PLR2004
                    raise CannotReach(
                        f"{self.address} answers {PATH} with HTTP {answer.status}{_advice(answer.status)}"
                    )
                return await answer.content.read(MAX_BYTES)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            words = "no answer in time" if isinstance(error, TimeoutError) else str(error)
            raise CannotReach(f"no daemon answers at {self.address}: {words}") from error

    async def close(self) -> None:
        """Close the connection."""
        await self._http.close()


class Pod(msgspec.Struct, frozen=True):
    """Location of the daemon in the cluster. `selector` finds its Pod, `port` is its port in the Pod."""

    namespace: str
    selector: str
    port: int
    https: bool = False
    kubeconfig: str | None = None
    context: str | None = None
    token: str = ""
    ca_file: str | None = None


class _Item(msgspec.Struct):
    name: str = ""


class _Condition(msgspec.Struct):
    type: str = ""
    status: str = ""


class _PodStatus(msgspec.Struct):
    phase: str = ""
    conditions: list[_Condition] = []


class _Pod(msgspec.Struct):
    metadata: _Item
    status: _PodStatus = msgspec.field(default_factory=_PodStatus)

    @property
    def rank(self) -> tuple[bool, bool, str]:
        """Sort key: ready Pods first, then running ones."""
        ready = any((each.type, each.status) == ("Ready", "True") for each in self.status.conditions)
        return (not ready, self.status.phase != "Running", self.metadata.name)


class _PodList(msgspec.Struct):
    items: list[_Pod] = []


class InCluster:
    """Connection to a daemon in a Pod, through the API server."""

    def __init__(self, pod: Pod) -> None:
        self._pod = pod
        self._session: Session | None = None
        self._forwarded: PortForward | None = None

    async def fetch(self) -> bytes:
        """Fetch the status document as JSON. Raises `CannotReach`."""
        if self._forwarded is not None:
            return await self._forwarded.fetch()
        name = await self._name()
        refusal = "a token does not pass the API server's proxy" if self._pod.token else ""
        if not refusal:
            try:
                return await self._by_proxy(name)
            except ClusterError as error:
                refusal = f"its proxy: {error}"
        if shutil.which("kubectl") is None:
            raise CannotReach(f"Pod {self._pod.namespace}/{name} through the API server: {refusal}; no kubectl on PATH")
        self._forwarded = await PortForward.open(self._pod, name, refusal)
        return await self._forwarded.fetch()

    async def close(self) -> None:
        """Close the connection."""
        if self._forwarded is not None:
            await self._forwarded.close()
        if self._session is not None:
            await self._session.close()

    async def _name(self) -> str:
        """Find the name of the daemon's Pod."""
        pod = self._pod
        query = urlencode({"labelSelector": pod.selector})
        path = f"/api/v1/namespaces/{quote(pod.namespace, '')}/pods"
        try:
            if self._session is None:
                self._session = await Session.open(pod.kubeconfig, pod.context)
            answer = await self._session.request("GET", self._session.url(path, query))
        except ClusterError as error:
            raise CannotReach(f"the cluster cannot be asked for the daemon's Pod: {error}") from error
        found = sorted(msgspec.json.decode(answer.body, type=_PodList).items, key=lambda each: each.rank)
        if not found:
            raise CannotReach(
                f"no Pod has the label {pod.selector} in namespace {pod.namespace}; name where the daemon runs by "
                "--namespace and --selector, or its address by --address"
            )
        return found[0].metadata.name

    async def _by_proxy(self, name: str) -> bytes:
        if self._session is None:
            raise CannotReach("the connection is closed")
        pod = self._pod
        target = f"{'https:' if pod.https else ''}{name}:{pod.port}"
        path = f"/api/v1/namespaces/{quote(pod.namespace, '')}/pods/{target}/proxy{PATH}"
        return (await self._session.request("GET", self._session.url(path))).body


class PortForward:
    """Connection to the daemon's Pod through `kubectl port-forward`."""

    def __init__(self, process: asyncio.subprocess.Process, direct: Direct) -> None:
        self._process = process
        self._direct = direct

    @classmethod
    async def open(cls, pod: Pod, name: str, reason: str) -> "PortForward":
        """Start `kubectl port-forward`. `reason` says why the proxy cannot be used. Raises `CannotReach`."""
        place = [
            f"--{flag}={value}" for flag, value in (("kubeconfig", pod.kubeconfig), ("context", pod.context)) if value
        ]
        process = await asyncio.create_subprocess_exec(
            "kubectl", *place, f"--namespace={pod.namespace}", "port-forward", "--address=127.0.0.1", f"pod/{name}",
            f":{pod.port}", stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            port = await asyncio.wait_for(_forwarded_port(process), FORWARD_TIMEOUT)
            scheme = "https" if pod.https else "http"
            # The certificate names the Pod or Service, which does not match 127.0.0.1.
            direct = Direct(f"{scheme}://127.0.0.1:{port}", pod.token, pod.ca_file, checks_name=False)
            return cls(process, direct)
        except (TimeoutError, CannotReach) as error:
            await _end(process)
            words = str(error) or "kubectl says nothing"
            raise CannotReach(
                f"Pod {pod.namespace}/{name} through the API server: {reason}; kubectl port-forward: {words}"
            ) from error

    async def fetch(self) -> bytes:
        """Fetch the status document as JSON. Raises `CannotReach`."""
        return await self._direct.fetch()

    async def close(self) -> None:
        """Stop kubectl."""
        await self._direct.close()
        await _end(self._process)


async def _forwarded_port(process: asyncio.subprocess.Process) -> int:
    if process.stdout is None or process.stderr is None:
        raise CannotReach("kubectl has no output")
    async for line in process.stdout:
        if (found := _FORWARDING.match(line)) is not None:
            return int(found[1])
    words = (await process.stderr.read()).decode("utf-8", "replace").strip()
    raise CannotReach(words.splitlines()[-1] if words else f"exit status {await process.wait()}")


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), 5.0)
    except TimeoutError:
        process.kill()
        await process.wait()


def decoded(document: bytes, where: str) -> Status:
    """Decode the document. Raises `CannotReach` if it is not a status."""
    try:
        return _decode(document)
    except msgspec.MsgspecError as error:
        raise CannotReach(f"what answers at {where} is no daemon of this version: {error}") from error


def _advice(code: int) -> str:
    match code:
        case 401 | 403:
            return ": it wants a token; name the file that holds it by --token-file"
        case 404:
            return ": it is no driftwatch, or an older one"
    return ""
