"""A configuration file that cannot be used is refused with its line, whatever is in it (h06)."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from driftwatch.config import Config, ConfigError, load
from driftwatch.config.file import load_with_lines
from driftwatch.model import ObjectKey
from driftwatch.notify import messages
from driftwatch.notify.messages import said
from driftwatch.report.drift_event import DriftEvent, EventType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import yaml_text

SOURCE = "sources:\n- name: apps\n  repository: https://git.example.com/apps.git\n"
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))

SEEN = DriftEvent(
    id="1",
    what=EventType.HEALED,
    time=1.0,
    since=1.0,
    key=ObjectKey("", "ConfigMap", "shop", "settings"),
    source="apps",
)

TAGS = [
    "bool",
    "int",
    "float",
    "null",
    "timestamp",
    "binary",
    "str",
    "seq",
    "map",
    "set",
    "omap",
    "pairs",
    "merge",
    "x",
]
BEFORE = ["", *(f"!!{tag} " for tag in TAGS), "!own ", "&a ", "*a ", "&a [*a] #", "{<<: *a} #", "&a {<<: *a} #"]
SCALARS = [
    "", "''", "maybe", "soon", "yes", "0x", "0b", "1_", "+", "-", ".", "1e400", ".inf", "-.inf", ".nan", "9" * 5000,
    "1:99:99", "2026-13-40", "2026-01-01T99:99:99Z", "~", "~nobody-by-this-name/x", "=", "<<", '"\\ud800"', '"\\0"',
    "60s", "'0 8 * * *'", "Europe", "../../etc", "'{object}'", "/spec/replicas", "$..[?@.a]", "$[?(((", "HEAD",
    "a" * 5000,
]  # fmt: skip
COLLECTIONS = ["[", "{", "[" * 100, "{a: [b]}", "[a, b]", "{a: b}"]
KEYS = [
    "cluster: {namespace: @@}", "cluster: {kubeconfig: @@}", "drift: {audit: @@}", "drift: {maxSnooze: @@}",
    "drift: {disabledRules: [@@]}", "server: {listen: @@}", "state: {directory: @@}", "ignore: [{pointers: [@@]}]",
    "ignore: [{paths: [@@]}]", "ignore: [{paths: ['$.a[?@.b == @@]']}]", "journal: {file: @@}",
    "journal: {maxSize: @@}",
    "notifications: [{name: x, type: slack, url: @@}]",
    "notifications: [{name: x, type: slack, url: 'http://localhost/', template: @@}]",
    "sources: [{name: a, repository: @@}]", "sources: [{name: a, repository: r, semver: @@}]",
    "sources: [{name: a, repository: r, windows: [{schedule: @@, duration: 1h}]}]",
    "sources: [{name: a, repository: r, windows: [{schedule: '0 8 * * *', duration: 1h, timezone: @@}]}]",
    "sources: [{name: a, repository: r, helm: {values: @@}}]", "sources: [{name: a, repository: r, vars: {x: @@}}]",
    "@@: 1", "? @@\n: 1", "? [@@]\n: 1", "<<: @@", "%YAML @@\n---\nx: 1", "%TAG @@\n---\nx: 1",
]  # fmt: skip


@pytest.fixture(scope="module")
def path() -> Iterator[Path]:
    """Give the path of a configuration file."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "driftwatch.yaml"


def check(path: Path, text: str | bytes) -> Config | None:
    """`load` returns, or raises `ConfigError` whose every line begins with file and line, and has no traceback."""
    content = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    path.write_bytes(content)
    lines = content.count(b"\n") + content.count(b"\r") + 1
    try:
        config, _ = load_with_lines(path)
    except ConfigError as error:
        for said in str(error).splitlines():
            file, _, rest = said.partition(f"{path}:")
            number, _, words = rest.partition(": ")
            assert not file, said
            assert 1 <= int(number) <= lines, said
            assert words, said
        return None
    use(config)
    return config


def use(config: Config) -> None:
    """Make of the configuration what the daemon makes of it when it takes it in."""
    config.managers()
    config.policies()
    config.pruning()
    config.windows()
    for source in config.sources:
        source.spec(Path("mirrors"))
        source.webhook.secret()


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (f"{SOURCE}cluster:\n  namespace: !!bool maybe\n", 5, "'maybe' cannot be read as bool: write it in quotes"),
        (f"{SOURCE}drift:\n  audit: !!timestamp soon\n", 5, "'soon' cannot be read as timestamp"),
        (f"{SOURCE}drift:\n  audit: !!int ''\n", 5, "'' cannot be read as int"),
        (f"{SOURCE}drift:\n  audit: 2026-13-40\n", 5, "'2026-13-40' cannot be read as timestamp"),
        (f"{SOURCE}  interval: {'9' * 5000}\n", 4, "cannot be read as int"),
        (f"{SOURCE}  helm:\n    values: &a\n      deep: [*a]\n", 5, "stands within itself"),
        (f'{SOURCE}journal:\n  file: "a\\0b"\n', 5, "the character U+0000 cannot be used"),
        (f"{SOURCE}state:\n  directory: ~nobody-by-this-name/x\n", 5, "state.directory: "),
        (f'{SOURCE}  revision: "\\ud800"\n', 4, "the character U+D800 cannot be used"),
        (f"{SOURCE}  windows:\n  - {{schedule: '0 8 * * *', duration: 1h, timezone: Europe}}\n", 5, "no time zone"),
    ],
)  # fmt: skip
def test_h06_every_value_that_cannot_be_read_is_named_with_its_line(
    path: Path, content: str, line: int, words: str
) -> None:
    """A tag that does not fit, recursion, and text that no file or JSON can hold are mistakes like any other."""
    path.write_text(content)

    with pytest.raises(ConfigError) as refused:
        load(path)

    assert str(refused.value).startswith(f"{path}:{line}: "), refused.value
    assert words in str(refused.value)


def test_h06_aliases_that_multiply_are_refused(path: Path) -> None:
    """A few lines of aliases cannot stand for millions of values."""
    layers = "".join(f"    l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]\n" for n in range(1, 9))
    path.write_text(f"{SOURCE}  helm:\n   values:\n    l0: &l0 [x]\n{layers}")

    with pytest.raises(ConfigError, match="aliases"):
        load(path)


@QUICK
@given(st.binary(max_size=200))
def test_h06_any_bytes_are_a_configuration_or_refused(path: Path, data: bytes) -> None:
    """Bytes that are no text at all, alone and behind a good beginning."""
    check(path, data)
    check(path, SOURCE.encode() + data)


@QUICK
@given(st.lists(yaml_text.values(), min_size=1, max_size=3), st.sampled_from(["cluster:", "drift:", "ignore:", "x:"]))
def test_h06_generated_yaml_is_a_configuration_or_refused(path: Path, texts: list[str], key: str) -> None:
    """YAML that is nearly well formed, in place of a section."""
    check(path, SOURCE + key + "\n".join(texts))


@settings(QUICK, max_examples=400)
@given(
    st.sampled_from(KEYS),
    st.sampled_from(BEFORE),
    st.sampled_from(SCALARS) | st.text(max_size=8) | st.sampled_from(COLLECTIONS),
    st.booleans(),
)
def test_h06_odd_values_are_a_configuration_or_refused(
    path: Path, key: str, tag: str, value: str, source: bool
) -> None:
    """Every kind of value with every tag, in every kind of setting."""
    check(
        path,
        (SOURCE if source and not key.startswith(("sources", "%")) else "") + key.replace("@@", tag + value) + "\n",
    )


@QUICK
@given(
    st.text(max_size=20)
    | st.sampled_from(["{object}", "{", "}", "{{}}", "{}", "{0}", "{object.x}", "{line!r}", "\ud800"])
)
def test_h06_a_template_that_is_accepted_never_fails(path: Path, template: str) -> None:
    """What the configuration takes as a template makes a message of every form."""
    quoted = '"' + "".join(f"\\U{ord(each):08x}" for each in template) + '"'
    entry = f"notifications: [{{name: x, type: slack, url: 'http://localhost/', template: {quoted}}}]\n"
    config = check(path, SOURCE + entry)
    if config is None:
        return
    [receiver] = config.notifications
    assert said(SEEN, receiver.template) is not None
    for form in (messages.webhook, messages.slack, messages.teams):
        assert form([SEEN], receiver.template).body
