"""Escapes characters that are unsafe in a terminal, a text log or UTF-8.

Names and messages come from Git and from the API server. A line break in one would forge a log line, an escape
sequence would control the reader's terminal, and a lone surrogate cannot be encoded at all.
"""


def printable(text: str) -> str:
    """Return the text with each unprintable character escaped as in a Python string."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escaped(each) for each in text)


def printable_lines(text: str) -> str:
    """Return the text with each unprintable character escaped but line feeds and tabs, where a text may have lines."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in "\n\t" else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
