"""What a configuration file may say, and what is said of one that cannot be used."""

from pathlib import Path

import pytest
from driftwatch.config import ConfigError, load
from driftwatch.config.reference import duration
from driftwatch.config.values import parse_duration
from driftwatch.model import Mode
from hypothesis import given
from hypothesis import strategies as st

SOURCE = "sources:\n- name: apps\n  repository: https://git.example.com/apps.git\n"


@pytest.fixture
def write(tmp_path: Path):
    """Write a configuration file and return its path."""

    def written(content: str | bytes) -> Path:
        path = tmp_path / "driftwatch.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return written


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path)
    return str(caught.value)


def test_the_shortest_file_names_a_source_and_all_else_has_a_default(write):
    config = load(write(SOURCE))
    [source] = config.sources
    assert (source.revision, source.path, source.interval, source.timeout) == ("HEAD", "", 30.0, 60.0)
    assert (source.namespace, source.mode) == ("default", Mode.HEAL)
    assert config.server.address == ("127.0.0.1", 9464)
    assert (config.cluster.kubeconfig, config.cluster.context, config.state.directory) == (None, None, None)


def test_a_section_whose_keys_are_all_commented_out_has_its_defaults(write):
    assert load(write(f"cluster:\n#  context: x\nserver:\n{SOURCE}")).server.listen == "127.0.0.1:9464"


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (f"{SOURCE}  intervall: 5s\n", 4, "unknown key `sources[0].intervall`"),
        (f"{SOURCE}cluster:\n  token: x\n", 5, "unknown key `cluster.token`"),
        ("cluster: {}\n", 1, "missing key `sources`"),
        ("sources:\n\n- name: apps\n", 3, "missing key `sources[0].repository`"),
        ("sources: []\n", 1, "sources: list should have at least 1 item"),
        ("sources:\n- just text\n", 2, "sources[0]: "),
        (f"{SOURCE}  interval: soon\n", 4, "sources[0].interval: 'soon' is no duration; one looks like 30s"),
        (f"{SOURCE}  interval: 30\n  timeout: 0s\n", 5, "sources[0].timeout: input should be greater than 0"),
        (f"{SOURCE}  interval: .inf\n", 4, "is no duration"),
        (f"{SOURCE}  interval: yes\n", 4, "is no duration"),
        (f"{SOURCE}- name: apps\n  repository: b\n", 4, "sources[1].name: two sources are named 'apps'"),
        (f"{SOURCE}  mode: heel\n", 4, "sources[0].mode: input should be 'heal', 'observe', 'paused' or 'ignore'"),
        (f"{SOURCE}  path: ../other\n", 4, "sources[0].path: path is relative to the repository's root"),
        (
            f"{SOURCE}  revision: 1.10\n",
            4,
            "sources[0].revision: is 1.1 to YAML, and should be text: write it in quotes",
        ),
        (f"server:\n  listen: '9464'\n{SOURCE}", 2, "server.listen: '9464' is not HOST:PORT"),
        (f"server:\n  listen: localhost:99999\n{SOURCE}", 2, "is not HOST:PORT"),
        (f"server:\n  certificateFile: /tls.crt\n{SOURCE}", 1, "certificateFile and keyFile come together"),
        ("sources:\n- name: Apps_1\n  repository: r\n", 2, "sources[0].name: string should match pattern"),
    ],
)
def test_a_mistake_is_named_with_its_line(write, content, line, words):
    path = write(content)
    said = refusal(path)
    assert said.startswith(f"{path}:{line}: "), said
    assert words in said


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        ("  render: jsonnet\n", 4, "sources[0].render: input should be 'auto', 'plain', 'kustomize' or 'helm'"),
        ("  helm:\n    chart: /etc\n", 4, "sources[0].helm: '/etc' is not relative to the source's path"),
        ("  helm:\n    valuesFiles: [~/v.yaml]\n", 5, "is not relative to the source's path"),
        ("  helm: {repository: 'https://c.example.com'}\n", 4, "repository needs chart, the chart's name there, and"),
        ("  helm: {repository: 'git://c.example.com', chart: c, version: 1.0.0}\n", 4, "begins with https://, http://"),
        ("  helm: {repository: 'https://u:p@c.example.com', chart: c, version: 1.0.0}\n", 4, "credentials belong into"),
        ("  helm: {chart: c, version: 1.0.0}\n", 4, "go with repository"),
        ("  helm: {repository: 'oci://c.example.com', chart: c, version: 1.0.0, username: u}\n", 4, "go together"),
        ("  helm: {releaseName: A_b}\n", 4, "is no name of a release"),
        ("  helm: {values: {day: 2026-01-01}}\n", 4, "values have no form in JSON"),
        ("  vars: {1A: x}\n", 4, "'1A' is no name of a variable"),
        ("  vars: {A: 1}\n", 4, "the value of A is 1 to YAML, and should be text: write it in quotes"),
        ("  varsFrom:\n  - namespace: a\n", 5, "names a configMap or a secret"),
        ("  varsFrom:\n  - configMap: a b\n", 5, "is no name of a ConfigMap or Secret"),
        ("  toolLimits: {memory: 5}\n", 4, "write it in quotes"),
        ("  toolLimits: {memory: 0Gi}\n", 4, "should match pattern"),
    ],
)
def test_a_mistake_in_how_a_source_is_rendered_is_named_with_its_line(write, content, line, words):
    path = write(f"{SOURCE}{content}")
    said = refusal(path)
    assert said.startswith(f"{path}:{line}: "), said
    assert words in said


def test_every_mistake_is_named_at_once(write):
    said = refusal(write(f"{SOURCE}  intervall: 5s\n  timeout: never\nserver:\n  port: 1\n"))
    assert [line.split(": ")[0].rpartition(":")[2] for line in sorted(said.splitlines())] == ["4", "5", "7"]


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (f"{SOURCE}sources: []\n", 4, "the key `sources` stands here twice"),
        (f"{SOURCE}  name: other\n", 4, "the key `name` stands here twice"),
        ("sources: [\n", 2, "not YAML: "),
        ("a: b: c\n", 1, "not YAML: "),
        (f"{SOURCE}---\n{SOURCE}", 4, "not YAML: but found another document"),
        (f"{SOURCE}  path: *nowhere\n", 4, "not YAML: found undefined alias"),
        (f"{SOURCE}  path: !!python/name:os.system x\n", 4, "not YAML: could not determine a constructor"),
        (f"{SOURCE}  path: 'a\0b'\n", 4, "the character U+0000 is not allowed"),
        ("", 1, "the file is empty: it must be a mapping with the key `sources`"),
        ("# nothing yet\n", 1, "the file is empty"),
        ("- name: apps\n", 1, "the file is no mapping"),
        (b"sources:\n- name: caf\xe9\n", 2, "is not UTF-8 text"),
        ("sources: " + "[" * 5000, 1, "nested too deeply"),
    ],
)
def test_what_is_no_usable_yaml_is_refused_with_its_line(write, content, line, words):
    path = write(content)
    said = refusal(path)
    assert said.startswith(f"{path}:{line}: "), said
    assert words in said


def test_what_looks_like_a_date_and_is_none_is_refused(write):
    assert "write it in quotes" in refusal(write(f"{SOURCE}  revision: 2026-99-99\n"))


def test_a_byte_order_mark_is_no_mistake(write):
    assert load(write(b"\xef\xbb\xbf" + SOURCE.encode())).sources[0].name == "apps"


def test_a_file_that_refers_to_itself_is_refused(write):
    assert "a value stands within itself by an alias" in refusal(write(f"{SOURCE}loop: &loop [*loop]\n"))


def test_a_file_that_is_not_there_or_a_folder_is_named(tmp_path):
    assert refusal(tmp_path / "none.yaml") == f"{tmp_path}/none.yaml: cannot be read: No such file or directory"
    assert refusal(tmp_path) == f"{tmp_path}: cannot be read: Is a directory"


@pytest.mark.parametrize(
    ("written", "used"),
    [
        ("repo", "{folder}/repo"),
        ("../repo", "{folder}/../repo"),
        ("/srv/repo", "/srv/repo"),
        ("~/repo", "{home}/repo"),
        ("git@git.example.com:apps.git", "git@git.example.com:apps.git"),
        ("git.example.com:apps.git", "git.example.com:apps.git"),
        ("ssh://git.example.com/apps.git", "ssh://git.example.com/apps.git"),
        ("file:///srv/repo", "file:///srv/repo"),
        ("./with:colon", "{folder}/with:colon"),
    ],
)
def test_a_repository_path_is_relative_to_the_folder_of_the_file(write, tmp_path, monkeypatch, written, used):
    monkeypatch.setenv("HOME", "/home/somebody")
    config = load(write(f"sources:\n- name: apps\n  repository: {written}\n"))
    assert config.sources[0].repository == used.format(folder=tmp_path, home="/home/somebody")


def test_other_paths_are_relative_to_the_folder_of_the_file_wherever_the_program_starts(write, tmp_path, monkeypatch):
    write(f"cluster:\n  kubeconfig: kube/config\nstate:\n  directory: state\n{SOURCE}")
    monkeypatch.chdir(tmp_path)
    config = load(Path("driftwatch.yaml"))
    assert config.cluster.kubeconfig == f"{tmp_path}/kube/config"
    assert config.state.directory == f"{tmp_path}/state"


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("30s", 30), ("5m", 300), ("1h30m", 5400), ("250ms", 0.25), ("1.5s", 1.5), (7, 7), (0.5, 0.5)],
)
def test_a_duration_is_read(written, seconds):
    assert parse_duration(written) == seconds


@pytest.mark.parametrize("written", ["", "s", "5", "5 s", "-5s", "5d", ".s", "1..5s", "5s\n", True, None, [], "٣s"])
def test_what_is_no_duration_is_refused(written):
    with pytest.raises(ValueError, match="is no duration"):
        parse_duration(written)


@given(st.integers(min_value=1, max_value=10**9))
def test_a_duration_is_written_as_it_is_read(milliseconds):
    assert round(parse_duration(duration(milliseconds / 1000)) * 1000) == milliseconds
