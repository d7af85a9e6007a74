"""table - what `courierctl status` shows

    pop3d: running, pid 4711, ports 110, sessions 3, /etc/courier/pop3d
    pop3d-ssl: stopped, ports 995, /etc/courier/pop3d-ssl

On a terminal, and with the package `rich` installed, it is a table.
"""

from __future__ import annotations

import sys


class Row:
    __slots__ = ("name", "pid", "ports", "sessions", "file", "remark")

    def __init__(
        self, name: str, pid: int | None, ports: str, sessions: int, file: str, remark: str
    ):
        self.name = name
        self.pid = pid  # None: stopped
        self.ports = ports
        self.sessions = sessions
        self.file = file
        self.remark = remark  # why it need not run; may be empty

    @property
    def state(self) -> str:
        return "stopped" if self.pid is None else "running"


def show(rows: list[Row]) -> None:
    if not (sys.stdout.isatty() and _show_table(rows)):
        for row in rows:
            print(plain(row))


def plain(row: Row) -> str:
    parts = [row.state]
    if row.pid is not None:
        parts.append(f"pid {row.pid}")
    parts.append(f"ports {row.ports}")
    if row.pid is not None:
        parts.append(f"sessions {row.sessions}")
    parts += [row.file, row.remark] if row.remark else [row.file]
    return f"{row.name}: {', '.join(parts)}"


def _show_table(rows: list[Row]) -> bool:
    """False, and nothing shown, without `rich`."""
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        return False
    table = Table("", "state", "pid", "ports", "sessions", "configuration", box=None)
    for row in rows:
        style = "green" if row.pid else "dim" if row.remark else "red"
        table.add_row(
            row.name,
            f"[{style}]{row.state}[/]" + (f" ({row.remark})" if row.remark else ""),
            str(row.pid or ""),
            row.ports,
            str(row.sessions) if row.pid else "",
            row.file,
        )
    Console().print(table)
    return True
