"""Errors of external tools. The message says what to install or configure."""


class ToolError(Exception):
    """A tool is neither installed nor can it be compiled."""
