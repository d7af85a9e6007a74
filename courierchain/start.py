"""start - where the launcher of every program begins

The launcher (bin/, one file under every program's name) runs

    python -I -B -c 'from courierchain.start import program; program()' "$0" "$@"

so that neither the environment nor the user's directory chooses what is imported (CVE-47). The
program's exit status is the process's; nothing is left to flush, and nothing is waited for.
"""

from __future__ import annotations

import os
import sys

from courierchain import handover, programs


def program() -> None:
    argv = sys.argv[1:]
    real = os.path.realpath(argv[0])
    programs.directory = os.path.dirname(real)
    name, real_name = os.path.basename(argv[0]), os.path.basename(real)
    entry = programs.ENTRIES.get(name) or programs.ENTRIES[real_name]
    os._exit(handover.run(handover.load(entry), argv, dict(os.environ)))
