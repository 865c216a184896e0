"""Shared set-up: one thread, and the folder of real data where there is one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """No test reads or leaves anything in the user's own cache."""
    monkeypatch.setenv("NOISEAUDIT_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder that NOISEAUDIT_DATA names; without it the test is skipped."""
    folder = os.environ.get("NOISEAUDIT_DATA")
    if not folder:
        pytest.skip("NOISEAUDIT_DATA names no folder of real data")
    return Path(folder)
