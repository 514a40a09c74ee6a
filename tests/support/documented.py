"""What the documents show, for tests that use it as it stands there."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def snippet(page: str, words: str) -> str:
    """The one block of YAML on a page of docs/ that has these words."""
    blocks = re.findall(r"^```yaml\n(.*?)^```$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    [found] = [block for block in blocks if words in block]
    return found
