"""A tool's own words, shortened to what an operator needs: the first lines that say something."""

import re

from driftwatch.desired.commands import redacted

_LINES = 6
_LENGTH = 700
_NOISE = re.compile(
    r"^(level=|time=|WARNING:|walk\.go:|\[warning\]|# Warning|Use --debug flag|Hang tight while|Usage:|kustomize |"
    r": unable to run: )"
)

_PREFIX = re.compile(r"^(Error: )+")  # a tool that is run by another has its own


def useful(words: str) -> str:
    """The first useful lines in one, without credentials of URLs and control characters."""
    lines = ["".join(c if c.isprintable() else " " for c in line).strip() for line in redacted(words).splitlines()]
    said = [_PREFIX.sub("", line) for line in lines if line and not _NOISE.search(line)]
    text = "; ".join(dict.fromkeys(said[:_LINES])) or words.strip()
    # What is wrong may stand at either end: a template that includes itself is told call by call.
    return text if len(text) <= _LENGTH else f"{text[: _LENGTH // 2]} … {text[-_LENGTH // 2 :]}"
