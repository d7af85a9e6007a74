"""pages - make the manual pages

    pages.py DIRECTORY [FILE.SECTION.rst...]

Makes DIRECTORY/manSECTION/NAME.SECTION of NAME.SECTION.rst, of all of them if none is named. Needs
docutils. Exits 1 with what docutils has to complain of, down to warnings.

A page begins with `NAME - purpose`, underlined; its section is told by the file's name, the version
by setup.cfg. A definition is an option or a setting, and what stands behind ` : ` its default.
"""

from __future__ import annotations

import sys
from configparser import ConfigParser
from pathlib import Path

from docutils.core import publish_string
from docutils.utils import SystemMessage
from docutils.writers.manpage import Writer

HERE = Path(__file__).parent
WARNING = 2  # a level of docutils


def sources() -> list[Path]:
    return sorted(HERE.glob("*.[578].rst"))


def name_of(source: Path) -> tuple[str, str]:
    """Name and section of a page."""
    name, section, _ = source.name.rsplit(".", 2)
    return name, section


def render(source: Path) -> str:
    """The page as man(1) reads it. Raises SystemMessage."""
    made = publish_string(
        text_of(source),
        source_path=str(source),
        writer=Writer(),
        settings_overrides={
            "halt_level": WARNING,
            "report_level": WARNING,
            "traceback": True,  # lets SystemMessage through
            "warning_stream": "",
            "file_insertion_enabled": False,
            "output_encoding": "unicode",
        },
    )
    # Newer docutils write the first heading otherwise than we write the others. Names of settings
    # are not to be hyphenated.
    return str(made).replace(".SH Name\n", ".SH NAME\n").replace("\n.TH ", "\n.nr HY 0\n.TH ", 1)


def text_of(source: Path) -> str:
    """The source, with the head that docutils wants."""
    name, section = name_of(source)
    first, _, rest = source.read_text().split("\n", 2)
    purpose = first.removeprefix(f"{name} - ")
    if purpose == first:
        raise SystemExit(f"{source}: the first line doesn't begin with {name} -")
    head = [
        *("=" * len(name), name, "=" * len(name)),
        *("-" * len(purpose), purpose, "-" * len(purpose)),
        f":Manual section: {section}",
        ":Manual group: courierpop3",
        f":Version: courierpop3 {version()}",
    ]
    return "\n".join([*head, rest])


def version() -> str:
    setup = ConfigParser()
    setup.read(HERE.parent.parent / "setup.cfg")
    return setup["metadata"]["version"]


def main(argv: list[str]) -> int:
    directory, *files = argv[1:]
    for source in map(Path, files) if files else sources():
        name, section = name_of(source)
        try:
            page = render(source)
        except SystemMessage as why:
            print(why, file=sys.stderr)
            return 1
        folder = Path(directory) / f"man{section}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.{section}").write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
