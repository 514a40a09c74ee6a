"""The tools that rendering runs, each looked for once while the process runs."""

import functools
from typing import TYPE_CHECKING

from driftwatch.desired.errors import RenderError

if TYPE_CHECKING:
    from driftwatch.tools import Program


@functools.cache
def program(name: str) -> "Program":
    """The tool, found or compiled. Raises `RenderError`; then it is looked for again next time."""
    # Loaded when a tool is needed: every restart of the process waits for what it loads.
    from driftwatch import tools  # noqa: PLC0415

    try:
        return tools.ensure(tools.TOOLS[name])
    except tools.ToolError as error:
        raise RenderError(str(error), passes=True) from error
