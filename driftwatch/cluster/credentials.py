"""Credentials for the API server, and their rotation while the daemon runs.

The `kubernetes` package reads kubeconfigs and finds a Pod's service account. Clusters are tested with that package.

Credentials rotate. The kubelet replaces a service account's token well before it expires (an hour by default).
Operators replace cluster CAs and client certificates. A rotation must not need a restart and must not cost a heal.
Files are therefore read again every minute, as client-go does, and immediately after a 401. If a file cannot be read,
its last content stays in use. An exec plugin runs in the background. Its last token stays in use until it returns a
new one.
"""

import asyncio
import os
import ssl
import time
from pathlib import Path
from typing import Any

import structlog
from kubernetes.aio import config as kubernetes_config
from kubernetes.aio.client import Configuration
from kubernetes.aio.config import incluster_config, kube_config

from driftwatch.cluster import exec_plugin
from driftwatch.cluster.errors import CredentialsError

REFRESH = (
    60.0  # seconds between checks of files and of an exec plugin's expiry; as in the kubernetes package and client-go
)
EXEC_AGAIN = 10.0  # minimum seconds between runs of an exec plugin whose tokens the API server rejects

_SERVICE_HOST = "KUBERNETES_SERVICE_HOST"
_BEARER = "BearerToken"
_FILES = ("ssl_ca_cert", "cert_file", "key_file")

log = structlog.get_logger()


class _Loader(kube_config.KubeConfigLoader):  # type: ignore[misc]  # the package has no types
    """The package's kubeconfig loader, with driftwatch's own runner for exec plugins."""

    async def load_from_exec_plugin(self) -> bool:
        """Run the plugin, unless its last credential has not expired yet. Raises `CredentialsError`."""
        expiry = getattr(self, "exec_plugin_expiry", None)
        if expiry is not None and not kube_config._is_expired(expiry):  # noqa: SLF001  nothing public says so
            return True
        status = await exec_plugin.run_plugin(self._user["exec"].value)
        if "token" in status:
            self.token = f"Bearer {status['token']}"
            if "expirationTimestamp" in status:
                self.exec_plugin_expiry = kube_config.parse_rfc3339(status["expirationTimestamp"])
        else:
            self.cert_file = kube_config._create_temp_file_with_content(status["clientCertificateData"])  # noqa: SLF001
            self.key_file = kube_config._create_temp_file_with_content(status["clientKeyData"])  # noqa: SLF001
        return True


class Credentials:
    """The API server's address, TLS context and `Authorization` header. Create it with `Credentials.find`."""

    def __init__(self, configuration: Any, loader: Any, token_file: Path | None) -> None:
        self._configuration = configuration
        self._loader = loader
        self._token_file = token_file
        self._token_error = ""
        self._read_at = time.monotonic()
        self._exec_at = float("-inf")
        self._plugin_error = ""
        self._plugin: asyncio.Task[None] | None = None
        self._renewing = asyncio.Lock()
        self.server: str = configuration.host.rstrip("/")
        self.proxy: str | None = configuration.proxy
        self.ssl = _ssl_context(configuration)
        self._versions = self._file_versions()

    @classmethod
    async def find(cls, kubeconfig: str | None, context: str | None) -> "Credentials":
        """Find credentials: in-cluster ones if no kubeconfig or context is given and they exist, else a kubeconfig's.

        Raises `CredentialsError`, which says what is missing and where it was searched for.
        """
        configuration = Configuration()
        if kubeconfig is None and context is None and os.environ.get(_SERVICE_HOST):
            try:
                kubernetes_config.load_incluster_config(client_configuration=configuration, try_refresh_token=False)
            except (kubernetes_config.ConfigException, OSError) as error:
                raise CredentialsError(f"in-cluster credentials cannot be used: {error}") from error
            found = cls(configuration, None, Path(incluster_config.SERVICE_TOKEN_FILENAME))
            found._read_token()  # strips the newline at the end of a file that was written by hand
            return found
        files = kubeconfig or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube/config")
        if not _any_is_a_file(files):
            raise CredentialsError(
                f"no kubeconfig at {files}; name one with cluster.kubeconfig or $KUBECONFIG, "
                "or run in a Pod with a service account"
            )
        try:
            merged = kube_config.KubeConfigMerger(files)
            loader = _Loader(config_dict=merged.config, config_base_path=None, active_context=context)
            await loader.load_and_set(configuration)
            found = cls(configuration, loader, _token_file(loader))
            found._forget_copies()
            found._read_token()
            return found
        except Exception as error:  # a malformed file makes the loader raise exceptions of any type
            raise CredentialsError(f"kubeconfig {files}: {error}") from error
        finally:
            kube_config._cleanup_temp_files()  # noqa: SLF001  copies of keys; a SIGKILL would leave them on disk

    async def close(self) -> None:
        """Cancel a running exec plugin."""
        if self._plugin is not None:
            self._plugin.cancel()
            await asyncio.wait([self._plugin])

    async def headers(self) -> dict[str, str]:
        """Return the headers of a request. Does not block: an exec plugin that is due runs in the background."""
        if time.monotonic() - self._read_at > REFRESH:
            self._read_files()
            self._run_plugin()
        return self._headers()

    def _headers(self) -> dict[str, str]:
        token = self._configuration.api_key.get(_BEARER)
        return {"Authorization": token} if token else {}

    async def renew(self, refused: dict[str, str]) -> bool:
        """Renew the credentials after a 401 for the `refused` headers. Returns whether the headers have changed."""
        async with self._renewing:
            if self._headers() == refused:
                self._read_files()
            if self._headers() == refused and self._plugin is not None:
                await asyncio.wait([self._plugin])  # a cancelled caller does not cancel the plugin
            if self._headers() == refused and time.monotonic() - self._exec_at >= EXEC_AGAIN:
                if self._loader is not None:  # without this, the loader runs the plugin only after the token expires
                    vars(self._loader).pop("exec_plugin_expiry", None)
                if plugin := self._run_plugin():
                    await asyncio.wait([plugin])
            return self._headers() != refused

    def _read_files(self) -> None:
        self._read_at = time.monotonic()
        self._read_token()
        self._reload_certificates()

    def _run_plugin(self) -> asyncio.Task[None] | None:
        """Start the user's exec plugin, or return the run in progress. Returns None if the user has no plugin."""
        user = getattr(self._loader, "_user", None)
        if user is None or "exec" not in user:
            return None
        if self._plugin is None or self._plugin.done():
            self._plugin = asyncio.get_running_loop().create_task(self._await_plugin())
        return self._plugin

    async def _await_plugin(self) -> None:
        try:
            await self._loader.load_from_exec_plugin()
            trouble = ""
        except Exception as error:  # noqa: BLE001  a malformed answer makes the package raise exceptions of any type
            trouble = str(error)
        self._exec_at = time.monotonic()  # the end of the run: other waiters must not start another run
        if trouble and trouble != self._plugin_error:
            log.warning(
                "credential plugin failed", error=trouble, next="the last token is used; the plugin is run again"
            )
        self._plugin_error = trouble
        if token := getattr(self._loader, "token", None):
            self._configuration.api_key[_BEARER] = token

    def _read_token(self) -> None:
        if self._token_file is None:
            return
        try:
            token = self._token_file.read_text().strip()
            trouble = "" if token else "it is empty"
        except (OSError, UnicodeDecodeError) as error:
            token, trouble = "", getattr(error, "strerror", None) or "it is no text"
        if token:
            self._configuration.api_key[_BEARER] = f"Bearer {token}"
        if trouble and trouble != self._token_error:
            log.warning(
                "token file cannot be read", file=str(self._token_file), error=trouble, next="the last token is used"
            )
        self._token_error = trouble

    def _forget_copies(self) -> None:
        """Forget the temporary files of inline certificates and keys. OpenSSL has already loaded them."""
        copies = kube_config._temp_files.values()  # noqa: SLF001  no public API
        for name in _FILES:
            if getattr(self._configuration, name) in copies:
                setattr(self._configuration, name, None)
        self._versions = self._file_versions()

    def _file_versions(self) -> dict[str, tuple[int, int]]:
        """Return mtime and size of each certificate file. A file that is missing counts as unchanged."""
        found = {}
        for name in _FILES:
            if file := getattr(self._configuration, name):
                try:
                    status = Path(file).stat()
                except OSError:
                    continue
                found[name] = (status.st_mtime_ns, status.st_size)
        return found

    def _reload_certificates(self) -> None:
        """Reload changed CA and client certificates for new connections. Open connections are not affected."""
        versions = self._file_versions()
        if versions == self._versions or not isinstance(self.ssl, ssl.SSLContext):
            return
        try:
            _load_certificates(self.ssl, self._configuration)
        except (OSError, ssl.SSLError) as error:  # certificate and key do not match yet: retried in a minute
            log.warning("certificates cannot be read", error=str(error), next="the last ones are used")
            return
        self._versions = versions


def _token_file(loader: Any) -> Path | None:
    """Return the `tokenFile` of a kubeconfig's user, if the loader used it."""
    user = loader._user  # noqa: SLF001  nothing public says so
    if user is None or "tokenFile" not in user or "token" in user or "exec" in user:
        return None
    return Path(loader._get_base_path(user.path), user["tokenFile"])  # noqa: SLF001


def _any_is_a_file(paths: str) -> bool:
    return any(Path(path).expanduser().is_file() for path in paths.split(os.pathsep) if path)


def _ssl_context(configuration: Any) -> ssl.SSLContext | bool:
    if not configuration.host.startswith("https"):
        return False
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    # Cluster CAs of older installers lack the key identifiers that the strict mode of Python 3.13 requires.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    _load_certificates(context, configuration)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _load_certificates(context: ssl.SSLContext, configuration: Any) -> None:
    if configuration.ssl_ca_cert:
        context.load_verify_locations(cafile=configuration.ssl_ca_cert)
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
