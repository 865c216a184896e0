"""Exact Hamming search against comparing everything with everything."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import noiseaudit.hamming as hamming
from noiseaudit.errors import DataError, UsageError
from noiseaudit.hamming import hamming_pairs


def slow(codes, radius, others=None):
    second = codes if others is None else others
    distances = np.bitwise_count(codes[:, None] ^ second[None]).sum(axis=2, dtype=int)
    rows, columns = np.nonzero(distances <= radius)
    kept = rows < columns if others is None else np.ones(len(rows), bool)
    return sorted(zip(rows[kept], columns[kept], distances[rows[kept], columns[kept]], strict=True))


def fast(codes, radius, others=None):
    blocks = hamming_pairs(codes, others, radius=radius)
    return sorted(pair for block in blocks for pair in zip(*block, strict=True))


def codes_of(random, n, words, bits):
    codes = random.integers(0, 2**63, (n, words), dtype=np.uint64)
    codes &= np.uint64(2 ** min(bits, 63) - 1)
    half = n // 2
    codes[half : 2 * half] = codes[:half]  # and so many near ones
    for row in range(half, 2 * half):
        for bit in random.permutation(64 * words)[: random.integers(0, 9)]:
            codes[row, bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
    return codes


@pytest.mark.parametrize("few", [0, 10**9], ids=["by chunks", "all with all"])
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    n=st.integers(0, 80),
    shape=st.sampled_from([(1, 64), (1, 20), (1, 3), (4, 64)]),
    radius=st.integers(0, 19),
)
def test_every_pair_once_with_its_distance(few, seed, n, shape, radius):
    codes = codes_of(np.random.default_rng(seed), n, *shape)
    others = codes[n // 3 :]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hamming._Chunk, "candidates", lambda *_: 0)  # never too many
        patch.setattr(hamming, "_BLOCK", 500)
        patch.setattr(hamming, "_FEW", few)
        assert fast(codes, radius) == slow(codes, radius)
        assert fast(codes, radius, others) == slow(codes, radius, others)


def test_where_chunks_lead_to_too_many_all_are_compared(monkeypatch):
    codes = codes_of(np.random.default_rng(0), 80, 1, 20)
    monkeypatch.setattr(hamming, "_FEW", 0)
    monkeypatch.setattr(hamming, "_compare_near", None)
    assert fast(codes, 6) == slow(codes, 6)
    assert fast(codes, 6, codes[:30]) == slow(codes, 6, codes[:30])


@pytest.mark.parametrize("radius", range(30))
@pytest.mark.parametrize("m", [1, 4, 16])
def test_thresholds_leave_no_pair_out(m, radius):
    # Were every chunk off by one more than its threshold, the codes would be beyond the radius.
    assert sum(t + 1 for t in hamming._thresholds(m, radius)) == radius + 1 or radius < m
    assert sum(t >= 0 for t in hamming._thresholds(m, radius)) >= min(m, radius + 1)


def test_many_codes_are_not_all_compared(monkeypatch):
    codes = np.random.default_rng(0).integers(0, 2**64, (20_000, 1), dtype=np.uint64)
    codes[1] = codes[0] ^ np.uint64(0b111)

    def refuse(*_):
        raise AssertionError("all pairs were compared")

    monkeypatch.setattr(hamming, "_compare_all", refuse)
    assert (0, 1, 3) in fast(codes, 4)


def test_what_it_refuses():
    codes = np.zeros((3, 1), np.uint64)
    with pytest.raises(UsageError, match="at least 0"):
        fast(codes, -1)
    with pytest.raises(DataError, match="one width"):
        fast(codes, 1, np.zeros((3, 2), np.uint64))
