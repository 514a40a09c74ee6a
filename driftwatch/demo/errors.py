"""What can end the demo early. Every message says what to do next."""


class DemoError(Exception):
    """The demo cannot begin or go on."""


class NotHealed(DemoError):
    """A step was not put back in time; the message says what is missing, and what driftwatch said of it."""


class Interrupted(BaseException):
    """SIGINT, SIGTERM or SIGHUP arrived. Not an `Exception`, so that nothing but the tidying up stands in its way."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
