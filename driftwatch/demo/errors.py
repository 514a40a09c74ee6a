"""Errors that end the demo early. Every message says what to do next."""


class DemoError(Exception):
    """The demo cannot start or continue."""


class NotHealed(DemoError):
    """A step was not healed in time. The message says what is missing, and what driftwatch logged about it."""


class Interrupted(BaseException):
    """SIGINT, SIGTERM or SIGHUP arrived. Not an `Exception`, so that only the cleanup code intercepts it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
