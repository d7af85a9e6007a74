"""What the processes of a listener are allowed where nobody has said it."""

from __future__ import annotations

import os

import pytest

from couriertcpd.children import usual_idle


@pytest.mark.parametrize(
    ("gigabytes", "most"), [(0.5, 20), (1, 25), (2, 50), (4, 100), (8, 200), (24, 300)]
)
def test_as_many_processes_wait_as_there_is_memory_for(monkeypatch, gigabytes, most):
    machine = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": int(gigabytes * 1e9 / 4096)}
    monkeypatch.setattr(os, "sysconf", machine.__getitem__)
    assert abs(usual_idle() - most) <= 1
