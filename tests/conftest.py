"""Shared set-up: one thread, and the folder of real data where there is one."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_limits

import noiseaudit as na
from noiseaudit.label_noise import flip_uniform


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Two workers have two cores: neither torch, nor NumPy's algebra, nor a command takes more."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch, threadpool_limits(1):
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="session")
def _caches(tmp_path_factory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("caches")
    return (str(folder / str(number)) for number in itertools.count())


@pytest.fixture(autouse=True)
def _own_cache(_caches, monkeypatch):
    """No test reads or leaves anything in the user's own cache; the folder is made when needed."""
    monkeypatch.setenv("NOISEAUDIT_CACHE", next(_caches))


@pytest.fixture(scope="session")
def noisy_digits():
    """The digits with a tenth of their labels flipped, and (n,) the clean labels."""
    clean = na.load("digits")
    return clean.with_labels(flip_uniform(clean.labels, 10, 0.1, seed=0)), clean.labels


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder that NOISEAUDIT_DATA names; without it the test is skipped."""
    folder = os.environ.get("NOISEAUDIT_DATA")
    if not folder:
        pytest.skip("NOISEAUDIT_DATA names no folder of real data")
    return Path(folder)
