"""The server's TLS certificate, reloaded while the daemon runs: cert-manager renews it every few weeks.

The two files are replaced one after the other, or by the symbolic link of a mounted Secret. For a moment, certificate
and key may not match. If they cannot be used, the error names the files and the previous certificate stays in use.
"""

import asyncio
import ssl
from pathlib import Path

import structlog

from driftwatch.files import version_of

LOOK_SECONDS = 5.0
"""Seconds between checks of the files."""

log = structlog.get_logger("driftwatch.web")


class CertificateError(Exception):
    """Certificate and key cannot be used. The message names the files."""


class Certificate:
    """A certificate and its key in files. `context` is a TLS context with the newest usable pair."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = (certificate, key)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._seen = self._versions()

    def load(self) -> None:
        """Load the files. Raises `CertificateError`; the previous certificate then stays in use."""
        certificate, key = self._files
        trial = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        for context in (trial, self.context):
            try:
                # Without this callback, OpenSSL would prompt for a password on the terminal and block.
                context.load_cert_chain(certificate, key, password=lambda: b"")
            except (OSError, ValueError) as error:  # an SSLError is an OSError
                words = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
                raise CertificateError(f"certificate {certificate} with key {key} cannot be used: {words}") from error

    async def follow(self) -> None:
        """Reload the files when they change, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = await asyncio.to_thread(self._versions)
            if now == self._seen:
                continue
            self._seen = now
            try:
                self.load()
            except CertificateError as error:
                log.error(  # noqa: TRY400  a traceback adds nothing
                    "certificate cannot be used", error=str(error), next="the one before it serves on"
                )
            else:
                log.info("certificate renewed", file=str(self._files[0]))

    def _versions(self) -> tuple[tuple[int, int, int] | None, ...]:
        """Return the versions of the files. They also change if a mounted Secret swaps its symbolic link."""
        return tuple(map(version_of, self._files))
