"""The server's TLS certificate, which is renewed while the daemon runs: cert-manager writes a new one every few weeks.

A pair of files is replaced one after the other, and a mounted Secret by a symbolic link: for a moment they may not fit
together. What cannot be used is named, and the certificate before it serves on.
"""

import asyncio
import ssl
from pathlib import Path

import structlog

from driftwatch.files import version_of

LOOK_SECONDS = 5.0
"""How often the files are looked at."""

log = structlog.get_logger("driftwatch.web")


class CertificateError(Exception):
    """Certificate and key cannot be used; the message names the files."""


class Certificate:
    """A certificate and its key, in files. `context` speaks TLS with the newest that could be used."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = (certificate, key)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._seen = self._versions()

    def load(self) -> None:
        """Take the files in. Raises `CertificateError`; then the certificate before stays."""
        certificate, key = self._files
        trial = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        for context in (trial, self.context):
            try:
                # A password would be asked for at the terminal, for ever.
                context.load_cert_chain(certificate, key, password=lambda: b"")
            except (OSError, ValueError) as error:  # an SSLError is an OSError
                words = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
                raise CertificateError(f"certificate {certificate} with key {key} cannot be used: {words}") from error

    async def follow(self) -> None:
        """Take the files in whenever they change, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = await asyncio.to_thread(self._versions)
            if now == self._seen:
                continue
            self._seen = now
            try:
                self.load()
            except CertificateError as error:
                log.error(  # noqa: TRY400  a stack says nothing more
                    "certificate cannot be used", error=str(error), next="the one before it serves on"
                )
            else:
                log.info("certificate renewed", file=str(self._files[0]))

    def _versions(self) -> tuple[tuple[int, int, int] | None, ...]:
        """What changes with the files, also where a mounted Secret swaps a symbolic link."""
        return tuple(map(version_of, self._files))
