"""Git credentials, certificates, proxy and SSH settings of a source, as environment variables for one git command.

Only Git's own mechanisms are used, all through the environment of the git that needs them: the SSH command, and a
credential helper that prints two variables. The helper is bound to the repository's host, so a redirect to another
host gets no credentials. No secret appears in an argument, a URL or a file that driftwatch writes. Credential files
are read before every operation, so a rotated credential is used at once.
"""

import os
import shlex
import stat
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from driftwatch.git.errors import AccessDenied
from driftwatch.secret import SecretUnavailable
from driftwatch.source_spec import SourceSpec, transport

CONNECT_SECONDS = 10
SSH = f"ssh -o BatchMode=yes -o ConnectTimeout={CONNECT_SECONDS} -o ServerAliveInterval=10"

TOKEN_USER = "x-access-token"  # noqa: S105  the name that GitHub documents; GitLab and Gitea accept any
_USERNAME, _PASSWORD = "DRIFTWATCH_GIT_USERNAME", "DRIFTWATCH_GIT_PASSWORD"
_PROXY_USERNAME, _PROXY_PASSWORD = "DRIFTWATCH_PROXY_USERNAME", "DRIFTWATCH_PROXY_PASSWORD"


class Environment(NamedTuple):
    """Extra environment variables for one git command, and the secret values to redact from its output."""

    variables: dict[str, str]
    secrets: tuple[str, ...]


class GitCredentials:
    """Reads the credentials of one source."""

    def __init__(self, spec: SourceSpec) -> None:
        self._repository = spec.repository
        self._access = spec.access
        self._forget_key: Callable[[], object] = lambda: None

    def environment(self) -> Environment:
        """Read credentials and certificates. Raises `AccessDenied` when one is missing or unusable."""
        variables: dict[str, str] = {}
        config: list[tuple[str, str]] = []
        secrets: list[str] = []
        try:
            if transport(self._repository) == "ssh":
                self._ssh(variables)
            else:
                self._credentials(variables, config, secrets)
                self._proxy(variables, config, secrets)
                self._authority(variables, config)
        except SecretUnavailable as error:
            raise AccessDenied(f"{error}; it is looked for again at the next try") from error
        variables.update(_as_variables(config))
        return Environment(variables, tuple(secrets))

    def _credentials(self, variables: dict[str, str], config: list[tuple[str, str]], secrets: list[str]) -> None:
        access = self._access
        if not (access.token or access.password):
            return
        if access.token:
            password = access.token.read("auth.token")
            username = access.username.read("auth.username") if access.username else TOKEN_USER
        else:
            username = access.username.read("auth.username")
            password = access.password.read("auth.password")
        variables |= {_USERNAME: username, _PASSWORD: password}
        secrets.append(password)
        config.append(("credential.helper", ""))  # an empty value drops all other helpers
        config.append((f"credential.{_origin(self._repository)}.helper", _helper(_USERNAME, _PASSWORD)))

    def _proxy(self, variables: dict[str, str], config: list[tuple[str, str]], secrets: list[str]) -> None:
        access = self._access
        if not access.proxy:
            return
        proxy = access.proxy
        if access.proxy_username:
            username = access.proxy_username.read("proxy.username")
            password = access.proxy_password.read("proxy.password")
            variables |= {_PROXY_USERNAME: username, _PROXY_PASSWORD: password}
            secrets.append(password)
            config.append((f"credential.{_origin(proxy)}.helper", _helper(_PROXY_USERNAME, _PROXY_PASSWORD)))
            scheme, _, rest = proxy.partition("://")
            proxy = f"{scheme}://{quote(username, safe='')}@{rest}"  # git asks for the password
        config.append((f"http.{self._repository}.proxy", proxy))
        variables |= {"NO_PROXY": "", "no_proxy": ""}  # the source asks for this proxy explicitly

    def _authority(self, variables: dict[str, str], config: list[tuple[str, str]]) -> None:
        if not self._access.ca_file:
            return
        _require_readable(self._access.ca_file, "caFile")
        variables["GIT_SSL_CAINFO"] = self._access.ca_file
        config.append((f"http.{self._repository}.sslVerify", "true"))

    def _ssh(self, variables: dict[str, str]) -> None:
        access = self._access
        if not (access.ssh_key_file or access.ssh_key_variable or access.known_hosts_file):
            return
        options: list[str] = []
        key = self._key_in_memory(access.ssh_key_variable) if access.ssh_key_variable else access.ssh_key_file
        if key:
            if access.ssh_key_file:
                _require_private(access.ssh_key_file, "auth.sshKeyFile")
            options += ["-o", f"IdentityFile={_ssh_quoted(key)}"]
            options += ["-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"]
        if access.known_hosts_file:
            _require_readable(access.known_hosts_file, "auth.knownHostsFile")
            options += ["-o", f"UserKnownHostsFile={_ssh_quoted(access.known_hosts_file)}"]
            options += ["-o", "GlobalKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=yes"]
            options += ["-o", "UpdateHostKeys=no"]  # the file belongs to the operator
        variables["GIT_SSH_COMMAND"] = f"{SSH} {shlex.join(options)}"
        variables["GIT_SSH_VARIANT"] = "ssh"

    def _key_in_memory(self, variable: str) -> str:
        """Write the key from an environment variable to an in-memory file. Returns its path.

        The next call closes the file.
        """
        key = os.environ.get(variable, "").strip()
        if not key:
            message = f"auth.sshKey: environment variable {variable} is not set; it is looked for again at the next try"
            raise AccessDenied(message)
        self._forget_key()
        descriptor = os.memfd_create("identity")
        self._forget_key = weakref.finalize(self, os.close, descriptor)
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, f"{key}\n".encode())
        return f"/proc/{os.getpid()}/fd/{descriptor}"  # ssh closes inherited descriptors, so it gets a /proc path


def credentials_in(environment: Environment) -> tuple[str, str] | None:
    """User name and password for the repository's host in this environment, or None."""
    variables = environment.variables
    return (variables[_USERNAME], variables[_PASSWORD]) if _PASSWORD in variables else None


def _helper(username: str, password: str) -> str:
    """A credential helper that prints two variables. `printf` is a shell builtin, so no process argument shows them."""
    say = f'printf \'username=%s\\npassword=%s\\n\' "${username}" "${password}"'
    return f'!f() {{ test "$1" != get || {say}; }}; f'


def _origin(url: str) -> str:
    """The URL's scheme, host and port, which a credential helper can be bound to."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _as_variables(config: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Git configuration as environment variables, numbered after those that the environment already has."""
    if not config:
        return
    given = os.environ.get("GIT_CONFIG_COUNT", "")
    first = int(given) if given.isdigit() else 0
    for number, (key, value) in enumerate(config, start=first):
        yield f"GIT_CONFIG_KEY_{number}", key
        yield f"GIT_CONFIG_VALUE_{number}", value
    yield "GIT_CONFIG_COUNT", str(first + len(config))


def _require_readable(path: str, what: str) -> None:
    try:
        with Path(path).open("rb") as file:
            if not file.read(1):
                raise AccessDenied(f"{what}: file {path} is empty; it is looked for again at the next try")
    except OSError as error:
        message = f"{what}: file {path} cannot be read: {error.strerror}; it is looked for again at the next try"
        raise AccessDenied(message) from error


def _require_private(path: str, what: str) -> None:
    """Raise `AccessDenied` if other users can read the key file. ssh itself would only skip such a key."""
    _require_readable(path, what)
    found = Path(path).stat()
    if found.st_uid == os.getuid() and stat.S_IMODE(found.st_mode) & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        hint = "ssh takes no key that others may read; chmod 600 it, or give the Secret's volume defaultMode: 0400"
        raise AccessDenied(f"{what}: file {path} has mode {mode:04o}: {hint}")


def _ssh_quoted(path: str) -> str:
    """Quote a path as an ssh option value. In one, % starts a token, ${ a variable, and a space ends a file name."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
