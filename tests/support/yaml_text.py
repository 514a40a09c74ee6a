"""YAML, well formed and nearly so: every style of scalar, flow and block collections, anchors, tags and comments.

What a text means is not known here; the tests ask kubectl.
"""

import json

from hypothesis import strategies as st

_WORDS = (
    "on", "Off", "yes", "N", "y", "true", "TRUE", "null", "~", "Null", "0644", "0o17", "089", "1e3", "-1.5E-7",
    ".5", "1.", "0x1F", "-0b101", "1_000", "12:30", "190:20:30", "2001-01-01", "2001-12-14t21:59:43Z", "512Mi",
    "1.10", "10.0.0.0/8", "http://example.com/x", "a b", "v1", "<<", "=", "9223372036854775808",
    "18446744073709551616", "-9223372036854775809", "1e400", ".5_0", "+12", "-0", "0.0", "x: y", "- x", "x #y",
    "x#y", "é", "漢字", "a'b", "a*", "a&b", "a!b", "a%b", "a?", "",
)  # fmt: skip
_NUMBERS = st.text("0123456789_.+-eExXoObB:", min_size=1, max_size=8)
_LETTERS = st.text("yYnNtTrRuUeEfFaAlLsSoOiI~.", min_size=1, max_size=5)
_PROSE = st.text("ab1 :-#,[]{}'\"\\!&*?|>%@`=<~\té\n", max_size=12)
_ANYTHING = _PROSE.map(lambda text: text.replace("\n", " "))
_plain = st.one_of(st.sampled_from(_WORDS), _NUMBERS, st.sampled_from(_WORDS), _LETTERS, _NUMBERS, _ANYTHING)
_tag = st.sampled_from((*[""] * 20, "!!str ", "!!str ", "!!int ", "!!float ", "!!bool ", "!!null ", "! ", "!!binary "))

_single = _PROSE.map(lambda text: "'" + text.replace("'", "''").replace("\n", " ") + "'")
_double = st.text(max_size=6).map(json.dumps) | _ANYTHING.map(lambda text: f'"{text}"')
_scalar = st.tuples(_tag, _plain | _single | _double).map("".join)


@st.composite
def _block_scalar(draw: st.DrawFn, indent: int) -> str:
    lines = draw(st.lists(st.text("ab :-#'\t ", max_size=6), max_size=5))
    header = draw(st.sampled_from("|>")) + draw(st.sampled_from(("", "-", "+", "2", "2-", "1+")))
    return header + "".join(f"\n{' ' * (indent + 2)}{line}" for line in lines)


def _flow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    end = st.sampled_from(("", "", ","))
    pair = st.tuples(_scalar, inner).map(lambda both: f"{both[0]}: {both[1]}")
    sequence = st.tuples(st.lists(inner | pair, max_size=3).map(", ".join), end).map(lambda both: f"[{''.join(both)}]")
    mapping = st.tuples(st.lists(pair | _scalar, max_size=3).map(", ".join), end).map(
        lambda both: f"{{{''.join(both)}}}"
    )
    return sequence | mapping


_flow_value = st.recursive(_scalar, _flow, max_leaves=6)


@st.composite
def _block(draw: st.DrawFn, indent: int, depth: int) -> str:
    """A block mapping or sequence below a key, or a value beside it."""
    style = draw(
        st.sampled_from(("flow", "flow", "scalar", "block", "alias", "anchored", "mapping", "sequence", "nothing"))
    )
    if style == "block":
        return " " + draw(_block_scalar(indent))
    if style == "alias":
        return " *" + draw(st.sampled_from("ab"))
    if style == "anchored":
        return f" &{draw(st.sampled_from('ab'))} {draw(_flow_value)}"
    if depth > 0 and style in ("mapping", "sequence"):
        entries = draw(st.lists(_block(indent + 2, depth - 1), min_size=1, max_size=3))
        if style == "sequence":
            return "".join(f"\n{' ' * (indent + 2)}-{entry}" for entry in entries)
        keys = [draw(st.sampled_from(("a", "b", "c", "1", "on", "<<")) | _scalar) for _ in entries]
        return "".join(f"\n{' ' * (indent + 2)}{key}:{entry}" for key, entry in zip(keys, entries, strict=True))
    comment = draw(st.sampled_from(("", "", "", " # comment", "\t# comment")))
    return f" {draw(_flow_value)}{comment}"


def values() -> st.SearchStrategy[str]:
    """What may stand behind `v:` in a manifest, with everything from the colon on."""
    return _block(0, 2)
