"""What the import linter can't say: it knows external packages only whole."""

import ast
from pathlib import Path

DRIVERS = Path(__file__).parents[1] / "services" / "dispatcher" / "drivers"


def imported_by(file: Path) -> set[str]:
    """Dotted names that the file imports: `from a import b` counts as `a` and `a.b`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
    return names


def test_drivers_know_no_web_server() -> None:
    files = list(DRIVERS.glob("*.py"))
    assert files
    assert {file.name for file in files if "aiohttp.web" in imported_by(file)} == set()
