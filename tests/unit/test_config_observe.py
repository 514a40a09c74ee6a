"""What the file may say about Events, the journal and notifications."""

import re
from pathlib import Path

import pytest
from driftwatch.config import load
from driftwatch.config.observe import Notification
from pydantic import ValidationError

ROOT = Path(__file__).parents[2]
HOOK = {"name": "hook", "type": "webhook", "url": "https://hooks.example.com/x"}


def test_a_webhook_is_told_of_one_event_at_a_time_and_others_of_twenty():
    assert Notification(**HOOK).batch == 1
    assert Notification(**{**HOOK, "type": "slack"}).batch == 20
    assert Notification(**{**HOOK, "batchMax": 7}).batch == 7


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"url": None}, "exactly one of url, urlFile and urlEnv"),
        ({"urlEnv": "HOOK"}, "exactly one of url, urlFile and urlEnv"),
        ({"url": "ftp://example.com"}, "url is no http or https address"),
        ({"url": "https://u:sesame@example.com"}, "put it into a file and name that by urlFile"),
        ({"tokenFile": "/t", "tokenEnv": "T"}, "both name the token"),
        ({"template": "{secret}"}, "the template has no field {secret}; there are commit, error"),
        ({"template": "{object.key}"}, "has no field {object.key}"),
        ({"template": "{object!r}"}, "takes no format"),
        ({"template": "{seconds:9999999d}"}, "takes no format"),
        ({"template": "{"}, "cannot be read"),
        ({"events": ["gone"]}, "events"),
        ({"severity": "loud"}, "severity"),
        ({"name": "A b"}, "name"),
    ],
)
def test_what_cannot_work_is_refused(settings, words):
    """Each mistake has its words, and none of them shows what may be a secret."""
    with pytest.raises(ValidationError) as caught:
        Notification(**{**HOOK, **settings})
    said = "\n".join(f"{mistake['loc']} {mistake['msg']}" for mistake in caught.value.errors())
    assert words in said
    assert "sesame" not in said


def test_the_example_is_what_its_comments_say():
    """config/examples/notifications.yaml loads, and no address that is a secret stands in it."""
    config = load(ROOT / "config/examples/notifications.yaml")
    receivers = {each.name: each for each in config.notifications}
    assert {each.type for each in config.notifications} == {"webhook", "slack", "teams", "alertmanager"}
    assert config.journal.file == "/var/lib/driftwatch/journal.jsonl"
    assert receivers["chat"].url is None
    assert receivers["platform-team"].address.variable == "TEAMS_WORKFLOW_URL"
    assert receivers["audit"].batch == 1


def test_every_example_of_the_page_loads(tmp_path):
    """The configurations that docs/notifications.md shows can be used."""
    page = (ROOT / "docs/notifications.md").read_text()
    shown = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert shown
    for number, text in enumerate(shown):
        file = tmp_path / f"{number}.yaml"
        file.write_text(f"sources:\n- name: apps\n  repository: https://git.example.com/apps.git\n{text}")
        load(file)
