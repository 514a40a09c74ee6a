"""Variables in text: which expressions there are, and what is none."""

import pytest
from driftwatch.render.substitution import SubstitutionError, substitute
from hypothesis import given
from hypothesis import strategies as st

VARIABLES = {"A": "one", "B": "two\nlines\n", "EMPTY": "", "PATH_1": "/a/b/a"}


def replaced(text, variables=VARIABLES):
    missing = []

    def undefined(name, position):
        missing.append((name, position))
        return "<none>"

    return substitute(text, variables, undefined), missing


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x: ${A}", "x: one"),
        ("${A}${A}-${A}", "oneone-one"),
        ("${B}", "twolines"),
        ("$A $(A) $ $$ $5", "$A $(A) $ $$ $5"),
        ("$${A} ${A}", "${A} one"),
        ("${NONE:-three}", "three"),
        ("${NONE:=three}", "three"),
        ("${NONE-three}", "three"),
        ("${NONE:-}", ""),
        ("${EMPTY:-three}", "three"),
        ("${EMPTY-three}", ""),
        ("${A:-three}", "one"),
        ("${NONE:-${A}-x}", "one-x"),
        ("${A:1}", "ne"),
        ("${A:0:2}", "on"),
        ("${A^^} ${A^} ${A,,}", "ONE One one"),
        ("${#A}", "3"),
        ("${PATH_1/a/x}", "/x/b/a"),
        ("${PATH_1//a/x}", "/x/b/x"),
    ],
)
def test_expressions(text, expected):
    assert replaced(text) == (expected, [])


def test_an_undefined_variable_is_told_with_its_place():
    assert replaced("a ${NONE} ${A}") == ("a <none> one", [("NONE", 2)])


@pytest.mark.parametrize("text", ["x ${", "x ${A", "x ${A\n}", "x ${}", "x ${1}", "x ${A B}", "x ${A%x}", "x ${-x}"])
def test_what_is_no_expression_is_an_error_with_its_place(text):
    with pytest.raises(SubstitutionError, match=r"write `\$\$\{`") as error:
        replaced(text)
    assert error.value.position == 2


@given(st.text(alphabet="ab${}\n:-", max_size=40))
def test_text_without_expressions_is_left_alone_and_any_text_ends(text):
    """Whatever is written, it ends; where there is no `${`, nothing changes."""
    try:
        result, _ = replaced(text)
    except SubstitutionError:
        return
    if "${" not in text:
        assert result == text
