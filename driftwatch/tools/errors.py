"""What can go wrong with a tool. The message says what to install, or what to set."""


class ToolError(Exception):
    """A tool is neither found nor can it be compiled."""
