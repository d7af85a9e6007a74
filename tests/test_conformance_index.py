"""Every id that the replacement of Courier has to meet, and every one of authentication, is in the
name of a test.

    python tests/test_conformance_index.py       prints the table: id, file::test...

Ids are those of the conformance list; as row_01 to row_58, the checklist of the reference of
couriertcpd; and as c10_01 to c10_56, that of the reference of Cyrus's pop3d. Of this one the README
says why NOT_ALIKE are otherwise here. The name of a recorded conversation counts as a test's. A
name has them in any case, `_` for `-`: test_cve_20_2595_06_...
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.cyruspop3d.conversations import CONVERSATIONS  # noqa: E402

TESTS = Path(__file__).parent
ID = re.compile(r"(?<![a-z0-9])((?:cve|row|c10|f_net|f_pid|authchain|[0-9]{4})_\d+)(?![0-9])")


def span(prefix: str, first: int, last: int, form: str = "02") -> set[str]:
    return {f"{prefix}_{number:{form}}" for number in range(first, last + 1)}


NOT_ALIKE = {
    "c10_17": "TCP wrappers",
    "c10_38": "a line over 8191 octets",
    "c10_56": "telemetry of commands",
}
REQUIRED = {
    *(span("c10", 1, 56) - NOT_ALIKE.keys()),
    *span("row", 1, 58),
    *span("2595", 1, 9),
    *span("8314", 1, 8),
    *span("8996", 1, 1),
    *span("9525", 1, 1),
    *span("5034", 1, 14),
    *span("4616", 1, 3),
    *span("2195", 1, 1),
    *span("5802", 1, 4),
    *span("7677", 1, 2),
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
    for title in CONVERSATIONS:
        for name in ID.findall(title):
            found.setdefault(name, []).append(f"cyruspop3d/conversations.py::{title}")
    return found


def test_what_is_not_alike_is_in_the_readme():
    text = (TESTS.parent / "README.rst").read_text()
    assert [words for words in NOT_ALIKE.values() if words not in text] == []


def test_every_id_is_in_the_name_of_a_test():
    assert sorted(REQUIRED - set(index())) == []


def test_no_name_has_a_row_that_there_is_not():
    assert sorted(name for name in index() if name.startswith("row") and name not in REQUIRED) == []


if __name__ == "__main__":
    for identifier, tests in sorted(index().items()):
        print(identifier, *tests, sep="\n    ")
