"""YAML means to driftwatch what it means to kubectl: compared with the real one, file by file.

`tests/corpus/yaml` holds awkward files in four folders: those that both read as the same, those that both refuse, and
those in which driftwatch differs on purpose. `docs/sources.md` tells operators of the differences.
"""

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support import yaml_text
from tests.support.hypothesis_profiles import examples
from tests.support.kubectl import Kubectl
from tests.support.yaml_oracle import DRY_RUN, LOCAL, Oracle, ours, same

CORPUS = Path(__file__).parents[1] / "corpus/yaml"
LOST = "kubectl loses data in silence"
UNLIKELY = "libyaml refuses it where kubectl's parser does not; it is an error with its line, and quoting mends it"
STRICTER = {
    "anchor-defined-twice.yaml": ("found duplicate anchor", "an alias would mean whichever stands nearest"),
    "colon-before-bracket.yaml": ("found unexpected ':'", UNLIKELY),
    "content-after-end-marker.yaml": ("content after `...`", LOST),
    "deep-nesting.yaml": ("nested deeper than 200 levels", "no object is; a bound keeps the process from harm"),
    "duplicate-key-by-spelling.yaml": ("duplicate key '1'", LOST),
    "duplicate-key.json": ("duplicate key 'v'", LOST),
    "duplicate-key.yaml": ("duplicate key 'v'", LOST),
    "escaped-apostrophe.yaml": ("found unknown escape character", UNLIKELY),
    "not-utf-8.yaml": ("not UTF-8 text", "kubectl puts U+FFFD in place of what it cannot read"),
    "scalar-tag-on-sequence.yaml": ("unknown tag !!str", "kubectl ignores the tag"),
    "unknown-tag-on-mapping.yaml": ("unknown tag !Sub", "kubectl ignores the tag: the template is applied as it is"),
    "unknown-tag.yaml": ("unknown tag !vault", "kubectl ignores the tag: the reference is applied as the secret"),
    "infinity-with-a-tag-as-key.yaml": ("infinity and NaN", "without the tag it is text, as for kubectl"),
}
LOOSER = {
    "content-on-separator.yaml": "YAML allows content on the line of `---`",
    "escaped-slash.yaml": "JSON allows it",
    "float-tag-on-uint64.yaml": "a large integer is a float to the API server anyway",
    "list-in-a-list.yaml": "tools that join the output of kubectl write them",
    "merge-of-an-aliased-sequence.yaml": "it can only mean one thing",
    "question-mark-in-flow.yaml": "YAML 1.2 allows it, and URLs have it",
    "timestamp-tag-on-text.yaml": "a timestamp is text to the API server anyway",
    "yaml-directive.yaml": "YAML allows it; kubectl cuts the file before it parses it",
}


def files(folder: str) -> list[Path]:
    found = sorted((CORPUS / folder).iterdir())
    assert found
    return found


def of_file(oracle: Oracle, stem: str) -> dict:
    """Objects of a corpus file: the first is named as the file, the others have a number behind it."""
    return {
        name: each for name, each in oracle.objects.items() if name == stem or name.rstrip("2345").rstrip("-") == stem
    }


@pytest.fixture(scope="module")
def agreed(kubectl: Kubectl) -> Oracle:
    """Kubectl's reading of what both read the same."""
    return Oracle(kubectl, DRY_RUN, CORPUS / "same")


@pytest.mark.parametrize("file", files("same"), ids=lambda file: file.name)
def test_d02_awkward_file_means_what_it_means_to_kubectl(agreed: Oracle, file: Path) -> None:
    """Every object of the file has the same content as from `kubectl create --dry-run=client`."""
    objects, unreadable = ours(file.read_bytes())

    expected = of_file(agreed, file.stem)

    assert file.name not in agreed.refused
    assert unreadable == []
    read = {each["metadata"]["name"]: each for each in objects}
    assert read.keys() == expected.keys() != set()
    for name, each in read.items():
        assert same(each, expected[name]), f"{each}\n{expected[name]}"


def test_d02_what_kubectl_refuses_is_refused(kubectl: Kubectl) -> None:
    """Each file of the corpus that is no YAML, or none with a form in JSON, is an error for both."""
    oracle = Oracle(kubectl, LOCAL, CORPUS / "refused")
    names = {file.name for file in files("refused")}
    assert oracle.refused.keys() == names, names - oracle.refused.keys()
    assert {file.name for file in files("refused") if ours(file.read_bytes())[1]} == names


def test_d02_where_kubectl_loses_data_driftwatch_refuses(kubectl: Kubectl) -> None:
    """Files that kubectl takes and driftwatch does not, each with its reason: none more, and none less."""
    oracle = Oracle(kubectl, LOCAL, CORPUS / "stricter")
    assert oracle.words == ""
    reasons = {file.name: [each.reason for each in ours(file.read_bytes())[1]] for file in files("stricter")}
    assert reasons.keys() == STRICTER.keys()
    for name, (words, _) in STRICTER.items():
        assert any(words in reason for reason in reasons[name]), (name, reasons[name])


def test_d02_what_driftwatch_takes_beyond_kubectl_is_known(kubectl: Kubectl) -> None:
    """Files that kubectl refuses and driftwatch reads: valid YAML or JSON, of which there is only one reading."""
    assert {file.name for file in files("looser")} == LOOSER.keys()
    for file in files("looser"):
        assert Oracle(kubectl, LOCAL, file).words, file.name
        assert ours(file.read_bytes())[0], file.name


KNOWN_STRICTER = tuple(words.split(" !")[0].split(" '")[0] for words, _ in STRICTER.values())
KNOWN_LOOSER = (
    "found unknown escape character",  # \/
    "map merge requires map or sequence of maps",
    "as a !!float",  # an unsigned integer of 64 bits
    "did not find expected ',' or",  # a question mark in a flow collection
)


@settings(
    max_examples=examples(12),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a document is small; to shrink a batch takes minutes
)
@given(texts=st.lists(yaml_text.values(), min_size=20, max_size=60))
def test_d02_generated_documents_mean_what_they_mean_to_kubectl(kubectl: Kubectl, texts: list[str]) -> None:
    """Random documents, well formed or nearly so, are read as the same or refused, by both; known differences aside."""
    head = "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: n{number}}}\nv:{text}\n"
    data = [head.format(number=number, text=text).encode() for number, text in enumerate(texts)]
    with tempfile.TemporaryDirectory() as folder:
        for number, each in enumerate(data):
            Path(folder, f"n{number}.yaml").write_bytes(each)
        oracle = Oracle(kubectl, LOCAL, Path(folder))
    for number, each in enumerate(data):
        objects, unreadable = ours(each)
        expected, refusal = oracle.objects.get(f"n{number}"), oracle.refused.get(f"n{number}.yaml")
        if expected is None:
            assert unreadable or any(words in str(refusal) for words in KNOWN_LOOSER), (each, objects, refusal)
        elif unreadable:
            assert any(words in unreadable[0].reason for words in KNOWN_STRICTER), (each, unreadable, expected)
        else:
            assert same(objects, [expected]), (each, objects, expected)
