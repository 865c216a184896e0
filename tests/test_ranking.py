import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noiseaudit.errors import DataError, UsageError
from noiseaudit.ranking import Ranking


def make(scores, ids=None, name="test"):
    scores = np.asarray(scores)
    return Ranking(name, np.arange(len(scores)) if ids is None else np.asarray(ids), scores)


def test_order_is_highest_first_and_ties_go_to_the_smaller_id():
    ranking = make([0.5, 0.9, 0.5, 0.1], ids=[7, 3, 2, 5])
    assert ranking.top(4).tolist() == [3, 2, 7, 5]
    assert ranking.ranks.tolist() == [3, 1, 2, 4]
    assert ranking.top(0).tolist() == []
    assert ranking.top(99).tolist() == [3, 2, 7, 5]


@pytest.mark.parametrize(
    ("scores", "ids", "words"),
    [
        ([0.1, np.nan], [0, 1], "scores of test must be finite; NaN or infinity in 1 row, first 1"),
        ([np.inf, 0.0], [0, 1], "first 0"),
        ([0.1, 0.2], [3, 3], "ids must be unique"),
        ([0.1, 0.2], [0, 1, 2], "lengths differ"),
        ([[0.1], [0.2]], [0, 1], "one-dimensional"),
        (["a", "b"], [0, 1], "numbers"),
    ],
)
def test_bad_scores_are_errors(scores, ids, words):
    with pytest.raises(DataError, match=words):
        make(scores, ids)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_small_rankings(n):
    ranking = make(np.arange(n))
    assert sorted(ranking.ranks.tolist()) == list(range(1, n + 1))
    assert len(ranking.to_frame()) == n


def test_flag_by_count_share_and_score():
    ranking = make([0.1, 0.4, 0.3, 0.2])
    assert ranking.flag(count=2).tolist() == [False, True, True, False]
    assert ranking.flag(share=0.25).tolist() == [False, True, False, False]
    assert ranking.flag(above=0.2).tolist() == [False, True, True, False]
    assert ranking.flag(count=0).tolist() == [False] * 4


@pytest.mark.parametrize("arguments", [{}, {"count": 1, "share": 0.5}])
def test_flag_wants_exactly_one_rule(arguments):
    with pytest.raises(UsageError, match="exactly one"):
        make([0.1]).flag(**arguments)


def test_flag_share_must_be_a_fraction():
    with pytest.raises(UsageError, match=r"share must be in \[0, 1\]; got 5"):
        make([0.1]).flag(share=5)


def test_combine_averages_rank_positions_by_id():
    first = make([3.0, 2.0, 1.0], ids=[10, 11, 12])  # positions 1, 0.5, 0
    second = make([5.0, 9.0, 1.0], ids=[12, 11, 10])  # id 11 first, then 12, then 10
    both = Ranking.combine([first, second])
    assert both.ids.tolist() == [10, 11, 12]
    assert both.scores.tolist() == [0.5, 0.75, 0.25]
    assert Ranking.combine([first, second], weights=[1, 0]).scores.tolist() == [1.0, 0.5, 0.0]


def test_combine_refuses_other_ids_and_nothing():
    with pytest.raises(DataError, match="different ids"):
        Ranking.combine([make([1.0, 2.0]), make([1.0, 2.0], ids=[0, 5])])
    with pytest.raises(DataError, match="empty"):
        Ranking.combine([])


def test_save_and_load_round_trip(tmp_path):
    ranking = make([0.1, 0.3, 0.2], ids=[4, 9, 1], name="curvy")
    ranking.save(tmp_path / "r.npz")
    again = Ranking.load(tmp_path / "r.npz")
    assert again.detector == "curvy"
    assert again.ids.tolist() == [4, 9, 1]
    assert again.scores.tolist() == [0.1, 0.3, 0.2]


def test_load_refuses_other_files_and_newer_formats(tmp_path):
    np.savez(tmp_path / "other.npz", x=np.arange(3))
    with pytest.raises(DataError, match="not a saved ranking"):
        Ranking.load(tmp_path / "other.npz")
    with pytest.raises(DataError, match="not a saved ranking"):
        Ranking.load(tmp_path / "missing.npz")
    np.save(tmp_path / "array.npy", np.arange(3))
    with pytest.raises(DataError, match="not a saved ranking"):
        Ranking.load(tmp_path / "array.npy")
    np.savez(tmp_path / "new.npz", format=99, what_comes_later=np.arange(2))
    with pytest.raises(DataError, match="format 99; update noiseaudit"):
        Ranking.load(tmp_path / "new.npz")


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 10**6)), unique_by=lambda pair: pair[1]),
    st.randoms(),
)
def test_order_does_not_depend_on_the_order_of_rows(pairs, random):
    shuffled = random.sample(pairs, len(pairs))
    tops = [
        make([float(score) for score, _ in some], ids=np.array([i for _, i in some], dtype=int))
        .top(len(pairs))
        .tolist()
        for some in (pairs, shuffled)
    ]
    assert tops[0] == tops[1]
