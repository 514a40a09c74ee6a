"""The dashboards as files."""

import json
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana import detail, overview
from grafana.frame import DETAIL, OVERVIEW

FOLDER = Path(__file__).parent


def files() -> dict[Path, str]:
    """Each file as it should be."""
    made = {OVERVIEW: overview.dashboard(), DETAIL: detail.dashboard()}
    return {FOLDER / f"{name}.json": _text(each) for name, each in made.items()}


def _text(dashboard: Dashboard) -> str:
    found: dict[str, Any] = json.loads(JSONEncoder().encode(dashboard.build()))
    # The SDK gives all of them its only placement, a menu that has to be opened first; without one they can be seen.
    for each in [*found["links"], *found["annotations"]["list"]]:
        del each["placement"]
    return json.dumps(found, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
