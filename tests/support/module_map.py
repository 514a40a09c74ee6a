"""The module map, docs/modules.md, made from docstrings: `python -m tests.support.module_map` writes it."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "driftwatch"
PAGE = ROOT / "docs" / "modules.md"

_HEAD = """\
# Module map

Made from the first sentence of each module's docstring by `python -m tests.support.module_map`. Which package may
import which stands in `pyproject.toml`, and `lint-imports` checks it.
"""


def page() -> str:
    """The page as it should be."""
    return _HEAD + "".join(_room(folder) for folder in _rooms())


def _rooms() -> Iterator[Path]:
    yield PACKAGE
    yield from sorted(path.parent for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE)


def _room(folder: Path) -> str:
    name = folder.relative_to(ROOT)
    rows = [f"| `{module.name}` | {_says(module)} |\n" for module in sorted(folder.glob("*.py")) if _is_named(module)]
    return f"\n## `{name}/`\n\n{_says(folder / '__init__.py')}\n\n| module | |\n|---|---|\n{''.join(rows)}"


def _is_named(module: Path) -> bool:
    return module.name != "__init__.py"


def _says(module: Path) -> str:
    doc = ast.get_docstring(ast.parse(module.read_text())) or ""
    return " ".join(doc.split("\n\n")[0].split())


if __name__ == "__main__":
    PAGE.write_text(page())
