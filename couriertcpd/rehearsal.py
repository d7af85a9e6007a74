"""rehearsal - go through the chain before the first client comes: see courierchain.rehearsal"""

from __future__ import annotations

from courierchain import rehearsal
from couriertcpd.worker import Serve

NOBODY = ("::1", 0)


def rehearse(serve: Serve) -> None:
    rehearsal.rehearse(lambda: serve(NOBODY, NOBODY, {}, None))
