"""The tools that rendering runs, each looked for once while the process runs."""

import functools

from driftwatch import tools
from driftwatch.desired.errors import RenderError


@functools.cache
def program(tool: tools.Tool) -> tools.Program:
    """The tool, found or compiled. Raises `RenderError`; then it is looked for again next time."""
    try:
        return tools.ensure(tool)
    except tools.ToolError as error:
        raise RenderError(str(error), passes=True) from error
