"""Scalars mean what kubectl 1.36 says: each expectation is its answer to `kubectl patch --local -p '{}' -o json`."""

import json

import orjson
import pytest
from driftwatch.manifests import yaml_documents, yaml_scalars
from hypothesis import given
from hypothesis import strategies as st

HEAD = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"

VALUES = [
    ("12:30", "12:30"),
    ("190:20:30", "190:20:30"),
    ("2001-01-01", "2001-01-01"),
    ("2001-12-14t21:59:43.10-05:00", "2001-12-14t21:59:43.10-05:00"),
    ("2001-12-14", "2001-12-14"),
    ("0o644", 420),
    ("0O644", 420),
    ("0o8", "0o8"),
    ("0o_7", 7),
    ("-0o7", -7),
    ("0644", 420),
    ("-0644", -420),
    ("+0644", 420),
    ("089", 89),
    ("00", 0),
    ("0_7", 7),
    ("0b101", 5),
    ("0B11", 3),
    ("-0b101", -5),
    ("0b2", "0b2"),
    ("0b1_0", 2),
    ("0x1F", 31),
    ("0X1F", 31),
    ("-0x1F", -31),
    ("+0x1F", 31),
    ("0x_1F", 31),
    ("0x", "0x"),
    ("0x1p-2", "0x1p-2"),
    ("0x8000000000000000", 9223372036854776000),
    ("1e3", 1000),
    ("1E+3", 1000),
    ("+1e3", 1000),
    ("1e-7", 1e-07),
    ("1e21", 1e21),
    ("1e20", 100000000000000000000),
    ("1.5e300", 1.5e300),
    ("1e400", "1e400"),
    ("-1e400", "-1e400"),
    ("1e", "1e"),
    ("1e3_0", 1e30),
    ("e3", "e3"),
    ("1.", 1),
    (".5", 0.5),
    ("-.5", -0.5),
    ("+.5", 0.5),
    (".", "."),
    (".5_0", 0.5),
    (".5__0", ".5__0"),
    ("1.e3", 1000),
    ("1.0", 1),
    ("0.0", 0),
    ("-0", 0),
    ("-0.0", 0),
    ("100000000.0", 100000000),
    ("123456789.123456789", 123456789.12345679),
    ("685.230_15e+03", 685230.15),
    ("1_000", 1000),
    ("1__0", 10),
    ("1_0.5", 10.5),
    ("_1", "_1"),
    ("+12", 12),
    ("12e03", 12000),
    ("123456789012345678", 123456789012345678),
    ("9223372036854775807", 9223372036854775807),
    ("9223372036854775808", 9223372036854776000),
    ("18446744073709551615", 18446744073709552000),
    ("18446744073709551616", 18446744073709552000),
    ("100000000000000000000", 100000000000000000000),
    ("-9223372036854775808", -9223372036854775808),
    ("-9223372036854775809", -9223372036854776000),
    ("07777777777777777777777", 7.777777777777777e21),
    ("on", True),
    ("On", True),
    ("ON", True),
    ("oN", "oN"),
    ("off", False),
    ("Off", False),
    ("OFF", False),
    ("oFf", "oFf"),
    ("yes", True),
    ("Yes", True),
    ("YES", True),
    ("yES", "yES"),
    ("no", False),
    ("No", False),
    ("NO", False),
    ("y", True),
    ("Y", True),
    ("n", False),
    ("N", False),
    ("true", True),
    ("True", True),
    ("TRUE", True),
    ("tRUE", "tRUE"),
    ("false", False),
    ("False", False),
    ("FALSE", False),
    ("null", None),
    ("Null", None),
    ("NULL", None),
    ("nULL", "nULL"),
    ("~", None),
    ("=", "="),
    ("<<", "<<"),
    ("1.2.3", "1.2.3"),
    ("1-2", "1-2"),
    ("10.0.0.0/8", "10.0.0.0/8"),
    ("512Mi", "512Mi"),
    ("100m", "100m"),
    ("v1", "v1"),
    ("Infinity", "Infinity"),
    ("NaN", "NaN"),
    ("inf", "inf"),
    ("nan", "nan"),
    (".5.5", ".5.5"),
    ("--1", "--1"),
    ("+-1", "+-1"),
    ("1,000", "1,000"),
    ("0.1", 0.1),
    ("1e+3", 1000),
    ("5e-324", 5e-324),
    ("1.7976931348623157e308", 1.7976931348623157e308),
    ("._5", "._5"),
    (".e3", ".e3"),
    ("+.inf_", "+.inf_"),
    ("0x_", "0x_"),
    ("0b_1", 1),
    ("-_1", -1),
    ("1_", 1),
    ("1e3.5", "1e3.5"),
    ("", None),
    ("!!str 12", "12"),
    ('!!int "12"', 12),
    ("!!float 3", 3),
    ("!!float 1_0", 10),
    ("!!float 0x1", 1),
    ("!!bool 'yes'", True),
    ("!!null ''", None),
    ("!!binary aGVsbG8=", "hello"),
    ("!!str ~", "~"),
    ("'12'", "12"),
    ('"on"', "on"),
    ("!!timestamp 2001-01-01", "2001-01-01"),
    ("! 12", "12"),
    ('! "on"', "on"),
    ("&a ! ~", "~"),
    ("[! 1, 1]", ["1", 1]),
    ("!!int 18446744073709551615", 18446744073709552000),
    ("1" * 5000, "1" * 5000),
    ("!!set {x}", {"x": None}),
    ("!!omap [x: 1]", [{"x": 1}]),
    ("[1, 'on', on]", [1, "on", True]),
    ("{on: off}", {"true": False}),
    ("|\n  a\n\n  b\n", "a\n\nb\n"),
    (">-\n  a\n  b\n", "a b"),
    ("'it''s'", "it's"),
    ('"\\u00e9\\n\\x41"', "é\nA"),
    ("\n- a\n-\n- {}", ["a", None, {}]),
]

KEYS = [
    ("1", "1"),
    ("1.0", "1"),
    ("1.5", "1.5"),
    ("1e3", "1000"),
    ("0x10", "16"),
    ("0644", "420"),
    ("true", "true"),
    ("on", "true"),
    ("2001-01-01", "2001-01-01"),
    ("100000000000000000000", "1e+20"),
    ("1e21", "1e+21"),
    ("1e100", ".inf"),
    ("! 12", "12"),
    ("1e-7", "1e-07"),
    ("0.1", "0.1"),
    ("3.4028235e38", "3.4028235e+38"),
    ("123456789.123", "1.2345679e+08"),
    ("16777217.0", "1.6777216e+07"),
    ("1000000.0", "1e+06"),
    ("123456.0", "123456"),
    ("0.0001", "0.0001"),
    ("0.00001", "1e-05"),
    (".nan", ".nan"),
    (".inf", ".inf"),
    ("-.inf", "-.inf"),
    ("=", "="),
    ("'<<'", "<<"),
    ("!!binary aGk=", "hi"),
    ("-1", "-1"),
    ("-0.0", "-0"),
]


def _read(text):
    (document,) = yaml_documents.read((HEAD + text).encode())
    assert isinstance(document, yaml_documents.Document), document
    return document.value


@pytest.mark.parametrize(("text", "expected"), VALUES)
def test_a_value_is_what_kubectl_makes_of_it(text, expected):
    """A value has kubectl's type, and as a number the same 64 bits."""
    value = _read(f"v: {text}\n")["v"]
    if isinstance(expected, int | float) and not isinstance(expected, bool):
        assert isinstance(value, int | float)
        assert not isinstance(value, bool)
        assert float(value) == float(expected)
    else:
        assert value == expected
        assert type(value) is type(expected)


@pytest.mark.parametrize(("text", "expected"), KEYS)
def test_a_key_has_the_name_that_kubectl_gives_it(text, expected):
    """Keys that are numbers, booleans or dates become kubectl's strings."""
    assert list(_read(f"v: {{{text} : x}}\n")["v"]) == [expected]


@pytest.mark.parametrize("text", [".inf", "-.Inf", ".nan", "!!float .inf"])
def test_what_json_cannot_say_is_refused(text):
    """Infinity and NaN are an error, as with kubectl."""
    (document,) = yaml_documents.read((HEAD + f"v: {text}\n").encode())
    assert isinstance(document, yaml_documents.Unreadable)
    assert document.line == 4
    assert "infinity" in document.reason


@given(st.integers(min_value=-(2**63), max_value=2**63 - 1))
def test_every_64_bit_integer_survives(number):
    """An integer of 64 bits is read as itself."""
    assert yaml_scalars.resolve(str(number)) == number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_finite_float_keeps_its_value(number):
    """A float is read as the same 64 bits, and always has a form in JSON."""
    value = yaml_scalars.resolve(json.dumps(number))
    assert isinstance(value, int | float)
    assert float(value) == number
    assert float(orjson.loads(orjson.dumps(value))) == number


@given(st.text(min_size=1))
def test_every_plain_scalar_has_a_value(text):
    """Nothing that may stand in a file makes the resolution fail."""
    value = yaml_scalars.resolve(text)
    assert value is None or isinstance(value, str | bool | int | float)
