"""What the event loop cannot give to anybody."""

import asyncio
import logging
import ssl

import pytest
from driftwatch.cli.run import _on_loop_error

LATE = "unable to perform operation on <TCPTransport closed=True reading=False 0x1>; the handler is closed"


@pytest.mark.parametrize(
    ("error", "told"), [(RuntimeError(LATE), False), (RuntimeError("other"), True), (ssl.SSLError("broken"), True)]
)
async def test_only_the_end_of_tls_on_a_closed_connection_is_kept_quiet(
    caplog: pytest.LogCaptureFixture, error: Exception, told: bool
) -> None:
    """Everything else that the loop complains about is logged as an error."""
    with caplog.at_level(logging.ERROR):
        _on_loop_error(asyncio.get_running_loop(), {"message": "Fatal error on SSL protocol", "exception": error})

    assert bool(caplog.records) is told
