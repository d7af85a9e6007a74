"""report - turn the measurements into the table that is printed at the end

    text(runs, pss, rounds)    runs: dictionaries as Load.measure gives them, each with "server",
                               "at_once" and "round"; pss: MB of an idle session by server

A line of the first table is the median over the rounds. A ratio is taken within each round, where
both sides met the same state of the machine, and then its median over the rounds.
"""

from __future__ import annotations

from statistics import median

GENERATOR = "generator"
RATE, CPU = "sessions_per_s", "cpu_ms_per_session"
COLUMNS = [
    ("sessions/s", RATE, ".0f"),
    ("CPU ms", CPU, ".2f"),
    ("p50 ms", "p50_ms", ".1f"),
    ("p99 ms", "p99_ms", ".1f"),
    ("greet p50", "greeting_p50_ms", ".1f"),
    ("greet p99", "greeting_p99_ms", ".1f"),
]
# ours, the original, what is compared, the aim
TARGETS = [
    ("ours-userdb", "courier-userdb", RATE, 1.8),
    ("ours-userdb", "courier-userdb", CPU, 0.6),
    ("ours-pam", "courier-pam", RATE, 1.3),
    ("ours-pam", "courier-pam", CPU, None),
    ("ours-fork", "courier-userdb", RATE, None),
    ("ours-fork", "courier-userdb", CPU, None),
    ("ours-fork-pam", "courier-pam", RATE, None),
    ("ours-fork-pam", "courier-pam", CPU, None),
    ("ours-virtual", "courier-userdb", RATE, 6.0),
    ("ours-virtual", "courier-userdb", CPU, None),
]
TARGETS_HOLD_AT = (8, 64)
PSS_TARGET_MB = 1.0
CEILING_TARGET = 5.0


def text(runs: list[dict], pss: dict[str, float], rounds: int) -> str:
    parts = [medians(runs, rounds), ratios(runs), memory(pss), ceiling(runs), errors(runs)]
    return "\n\n".join(part for part in parts if part)


def medians(runs: list[dict], rounds: int) -> str:
    heads = "".join(f"{head:>11}" for head, _, _ in COLUMNS)
    lines = [f"Medians of {rounds} rounds", f"{'server':16}{'at once':>8}{heads}"]
    for server in names(runs):
        for at_once in sorted({run["at_once"] for run in runs if run["server"] == server}):
            cells = [
                f"{median(of(runs, server, at_once, key).values()):11{form}}"
                for _, key, form in COLUMNS
            ]
            lines.append(f"{server:16}{at_once:8}{''.join(cells)}")
    return "\n".join(lines)


def ratios(runs: list[dict]) -> str:
    lines = []
    for ours, theirs, key, aim in TARGETS:
        for at_once in sorted({run["at_once"] for run in runs}):
            ratio = ratio_of(runs, ours, theirs, at_once, key)
            if ratio is None:
                continue
            what = "sessions/s" if key == RATE else "CPU"
            held = aim if at_once in TARGETS_HOLD_AT else None
            lines.append(
                f"{ours:16}{theirs:16}{what:12}{at_once:>8}{ratio:9.2f} x"
                f"   {judged(ratio, held, at_least=key == RATE, unit=' x')}".rstrip()
            )
    head = f"{'ours':16}{'original':16}{'measure':12}{'at once':>8}{'ratio':>11}   target"
    return "\n".join(["Ratios, ours / original", head, *lines]) if lines else ""


def memory(pss: dict[str, float]) -> str:
    if not pss:
        return ""
    lines = []
    for server, megabytes in pss.items():
        aim = PSS_TARGET_MB if server.startswith("ours") else None
        lines.append(
            f"{server:16}{megabytes:8.2f} MB   {judged(megabytes, aim, at_least=False, unit=' MB')}"
        )
    return "\n".join(["PSS of an idle logged-in session", *(line.rstrip() for line in lines)])


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
        f"{ratio:.1f} x the fastest server ({fastest})   {verdict}"
    )


def errors(runs: list[dict]) -> str:
    lines = [
        f"  {run['server']} at {run['at_once']}, round {run['round']}: {run['errors']} of "
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
    one, other = of(runs, ours, at_once, key), of(runs, theirs, at_once, key)
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
