"""Every id that the replacement of Courier has to meet, and every one of authentication, is in the
name of a test.

    python tests/test_conformance_index.py       prints the table: id, file::test...

Ids are those of the conformance list and, as row_01 to row_58, the checklist of the reference of
couriertcpd. A name has them in any case, `_` for `-`: test_cve_20_2595_06_...
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
ID = re.compile(r"(?<![a-z0-9])((?:cve|row|f_net|f_pid|authchain|[0-9]{4})_\d+)(?![0-9])")


def span(prefix: str, first: int, last: int, form: str = "02") -> set[str]:
    return {f"{prefix}_{number:{form}}" for number in range(first, last + 1)}


REQUIRED = {
    *span("row", 1, 58),
    *span("2595", 1, 9),
    *span("8314", 1, 8),
    *span("8996", 1, 1),
    *span("9525", 1, 1),
    *span("5034", 1, 14),
    *span("4616", 1, 3),
    *span("2195", 1, 1),
    *span("7628", 1, 1),
    *span("3206", 1, 2),
    *span("authchain", 1, 5),
    *span("cve", 5, 9),
    *span("cve", 20, 24),
    *span("cve", 30, 43),
    *span("cve", 48, 50),
    *span("f_net", 1, 7, "d"),
    *span("f_pid", 1, 3, "d"),
}


def names() -> dict[str, list[str]]:
    """All tests, and where they are."""
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                place = f"{path.relative_to(TESTS)}::{node.name}"
                found.setdefault(node.name, []).append(place)
    return found


def index() -> dict[str, list[str]]:
    """Which tests have an id in their names."""
    found: dict[str, list[str]] = {}
    for test, places in names().items():
        for name in ID.findall(test.lower().replace("test_", "", 1)):
            found.setdefault(name, []).extend(places)
    return found


def test_every_id_is_in_the_name_of_a_test():
    assert sorted(REQUIRED - set(index())) == []


def test_no_name_has_a_row_that_there_is_not():
    assert sorted(name for name in index() if name.startswith("row") and name not in REQUIRED) == []


if __name__ == "__main__":
    for identifier, tests in sorted(index().items()):
        print(identifier, *tests, sep="\n    ")
