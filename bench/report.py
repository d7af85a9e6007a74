"""report - turn the measurements into tables in Markdown

    text(runs, rounds)         runs: dictionaries as Load.measure gives them, each with "server",
                               "order", "at_once" and "round"
    table(heads, rows)         the first column and long text to the left, the others to the right
    errors(runs)               what to say if sessions failed, else ""

A cell of the first table is the median over the rounds. A ratio is taken within each round, where
both sides met the same state of the machine, and then its median over the rounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

GENERATOR = "generator"
RATE, CPU = "sessions_per_s", "cpu_ms_per_session"
P50, P99, GREETING = "p50_ms", "p99_ms", "greeting_p50_ms"
# head, measure, at once, form
COLUMNS = [
    ("sessions/s at 1", RATE, 1, ".0f"),
    ("at 8", RATE, 8, ".0f"),
    ("at 64", RATE, 64, ".0f"),
    ("CPU ms at 8", CPU, 8, ".2f"),
    ("at 64", CPU, 64, ".2f"),
    ("greeting ms at 1", GREETING, 1, ".2f"),
    ("p50 ms at 1", P50, 1, ".1f"),
    ("at 8", P50, 8, ".1f"),
    ("at 64", P50, 64, ".1f"),
    ("p99 ms at 1", P99, 1, ".1f"),
    ("at 8", P99, 8, ".1f"),
    ("at 64", P99, 64, ".1f"),
]
NAMES = {RATE: "sessions/s", CPU: "CPU", P99: "p99", GREETING: "greeting"}
# what, ours, the other, at once, the aim: at least of sessions/s, at most of all else
TARGETS = [
    (RATE, "ours-userdb", "courier-userdb", (8, 64), 4.0),
    (RATE, "ours-pam", "courier-pam", (8, 64), 2.0),
    (RATE, "ours-sha512", "courier-sha512", (8, 64), 1.8),
    (RATE, "ours-virtual", "dovecot-virtual", (8, 64), 2.5),
    (P99, "ours-userdb", "courier-userdb", (64,), 0.25),
    (GREETING, "ours-userdb", "courier-userdb", (1,), 0.3),
    (RATE, "ours-userdb", "dovecot", (8, 64), 1.0),
    (RATE, "ours-userdb", "dovecot-tuned", (8, 64), 1.0),
    (RATE, "ours-sha512", "dovecot-sha512", (8, 64), 1.0),
    (RATE, "ours-userdb", "cyrus", (8, 64), 1.0),
    (RATE, "ours-pam", "popa3d", (8, 64), 1.0),
    (RATE, "ours-sha512-cache", "ours-sha512", (8, 64), None),
    (RATE, "ours-park", "courier-userdb", (8, 64), None),
    (RATE, "ours-fork", "courier-userdb", (8, 64), None),
    (RATE, "ours-fork-pam", "courier-pam", (8, 64), None),
    (CPU, "ours-userdb", "courier-userdb", (8, 64), None),
    (CPU, "ours-pam", "courier-pam", (8, 64), None),
    (CPU, "ours-sha512-cache", "ours-sha512", (8, 64), None),
    (CPU, "ours-virtual", "dovecot-virtual", (8, 64), None),
]
CEILING_TARGET = 5.0
LONGEST_NUMBER = 40  # a longer cell is text


def text(runs: list[dict], rounds: int) -> str:
    parts = [medians(runs, rounds), ratios(runs), ceiling(runs)]
    return "\n\n".join(part for part in parts if part)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [list(heads), *map(list, rows)]
    columns = [aligned(column, number) for number, column in enumerate(zip(*lines, strict=True))]
    return "\n".join(f"| {' | '.join(line)} |" for line in zip(*columns, strict=True))


def aligned(column: Sequence[str], number: int) -> list[str]:
    """The cells in one width, with the rule behind the first of them."""
    width = max(3, *map(len, column))
    if number == 0 or width > LONGEST_NUMBER:
        head, *cells = (cell.ljust(width) for cell in column)
        return [head, "-" * width, *cells]
    head, *cells = (cell.rjust(width) for cell in column)
    return [head, "-" * (width - 1) + ":", *cells]


def medians(runs: list[dict], rounds: int) -> str:
    heads = [f"medians of {rounds}", *(head for head, *_ in COLUMNS)]
    rows = [
        [server, *(cell(runs, server, *column) for _, *column in COLUMNS)] for server in names(runs)
    ]
    return table(heads, rows)


def cell(runs: list[dict], server: str, key: str, at_once: int, form: str) -> str:
    found = of(runs, server, at_once, key).values()
    return f"{median(found):{form}}" if found else ""


def ratios(runs: list[dict]) -> str:
    rows = []
    for key, ours, theirs, counts, aim in TARGETS:
        for at_once in counts:
            ratio = ratio_of(runs, ours, theirs, at_once, key)
            if ratio is not None:
                verdict = judged(ratio, aim, at_least=key == RATE, unit=" x")
                row = [f"{ours} / {theirs}", NAMES[key], str(at_once), f"{ratio:.2f} x", verdict]
                rows.append(row)
    return table(["ratio", "of", "at once", "", "aim"], rows) if rows else ""


def ceiling(runs: list[dict]) -> str:
    """The generator's own speed must not be what is measured."""
    others = [server for server in names(runs) if server != GENERATOR]
    speeds = {server: best_rate(runs, server) for server in names(runs)}
    if GENERATOR not in speeds or not others:
        return ""
    fastest = max(others, key=lambda server: speeds[server])
    ratio = speeds[GENERATOR] / max(speeds[fastest], 0.001)
    verdict = judged(ratio, CEILING_TARGET, at_least=True, unit=" x")
    return (
        f"Load generator's ceiling: {speeds[GENERATOR]:.0f} sessions/s, "
        f"{ratio:.1f} x the fastest server ({fastest}); {verdict}"
    )


def errors(runs: list[dict]) -> str:
    lines = [
        f"  {run['server']}, {what(run)}round {run['round']}: {run['errors']} of "
        f"{run['sessions']} failed ({run['warm_up_errors']} while warming up): "
        f"{run['first_bad_reply']}"
        for run in runs
        if failed(run)
    ]
    return (
        "\n".join(["*** SESSIONS FAILED: THE NUMBERS ABOVE ARE WORTHLESS ***", *lines])
        if lines
        else ""
    )


def what(run: dict) -> str:
    return "".join(f"{key} {run[key]}, " for key in ("at_once", "kind", "held") if key in run)


def failed(run: dict) -> bool:
    return bool(run["errors"] or run["warm_up_errors"])


def names(runs: list[dict]) -> list[str]:
    return list(dict.fromkeys(run["server"] for run in sorted(runs, key=lambda run: run["order"])))


def of(runs: list[dict], server: str, at_once: int, key: str) -> dict[int, float]:
    """The values of one measure, by round."""
    return {
        run["round"]: run[key]
        for run in runs
        if run["server"] == server and run["at_once"] == at_once
    }


def ratio_of(runs: list[dict], ours: str, theirs: str, at_once: int, key: str) -> float | None:
    return ratio(of(runs, ours, at_once, key), of(runs, theirs, at_once, key))


def ratio(one: dict[int, float], other: dict[int, float]) -> float | None:
    """Of two measures by round; None if they share no round."""
    found = [one[number] / other[number] for number in one if other.get(number)]
    return median(found) if found else None


def best_rate(runs: list[dict], server: str) -> float:
    counts = {run["at_once"] for run in runs if run["server"] == server}
    return max(median(of(runs, server, at_once, RATE).values()) for at_once in counts)


def judged(value: float, aim: float | None, at_least: bool, unit: str) -> str:
    if aim is None:
        return ""
    met = value >= aim if at_least else value <= aim
    return f"{'>=' if at_least else '<='} {aim}{unit}: {'met' if met else 'MISSED'}"
