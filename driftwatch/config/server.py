"""Settings for the HTTP endpoints: address, TLS and authentication."""

from pydantic import Field, field_validator, model_validator

from driftwatch.config.values import FilePath, Section


class Server(Section):
    """The HTTP endpoints `/metrics`, `/healthz` and `/readyz`."""

    listen: str = Field("127.0.0.1:9464", description="Address and port to listen on. Port 0 takes any free port.")
    certificateFile: FilePath | None = Field(  # noqa: N815  keys of the file are camelCase, as Kubernetes' are
        None,
        examples=["/etc/driftwatch/tls/tls.crt"],
        description="PEM file with the server's certificate and those that it was signed with: TLS is spoken, and "
        "nothing else. Read again when it changes, without a restart. Needs `keyFile`.",
    )
    keyFile: FilePath | None = Field(  # noqa: N815
        None, examples=["/etc/driftwatch/tls/tls.key"], description="PEM file with the certificate's key, unencrypted."
    )
    tokenFile: FilePath | None = Field(  # noqa: N815
        None,
        examples=["/etc/driftwatch/token"],
        description="File with the token that requests must carry (`Authorization: Bearer TOKEN`), one line. Read "
        "again for each request. Absent: nobody is asked for one. Webhooks have secrets of their own.",
    )
    openProbes: bool = Field(  # noqa: N815
        default=True,
        description="Whether `/healthz` and `/readyz` answer without the token, which the kubelet does not have.",
    )

    @field_validator("listen")
    @classmethod
    def _has_port(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65535:  # noqa: PLR2004
            raise ValueError(f"{value!r} is not HOST:PORT")
        return value

    @model_validator(mode="after")
    def _certificate_and_key(self) -> "Server":
        if (self.certificateFile is None) != (self.keyFile is None):
            raise ValueError("certificateFile and keyFile come together: TLS needs both")
        return self

    @property
    def address(self) -> tuple[str, int]:
        """Return host and port."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)
