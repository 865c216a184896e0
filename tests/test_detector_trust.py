"""Which detectors are trusted: those that find planted flips, or the label odds."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from noiseaudit.detector_trust import AS_GOOD, trust_detectors
from noiseaudit.evaluation import auroc
from noiseaudit.label_channel import LabelChannel
from noiseaudit.left_out import LeftOut
from noiseaudit.planted_rounds import ODDS
from tests._data import make_rounds

CHANNEL = LabelChannel(scale=1.0, transition=np.eye(4), joint=np.eye(4) / 4)


def left_out(found):
    """The same, where label odds are those of left-out predictions."""
    return replace(found, odds_channel=CHANNEL)


def of_network(found):
    """The same, where left-out predictions tell a network's odds which mistakes are common."""
    probs = np.full((len(found.given), 4), 0.25, np.float32)
    return replace(found, left_out=LeftOut(np.arange(len(probs)), probs, CHANNEL))


def test_to_put_plants_above_wrong_labels_is_no_merit():
    found, _, _ = make_rounds(
        rate=0.4, late=lambda wrong, noise: 1.3 * noise[1] + 5 * wrong - 2 * wrong[0]
    )
    planted = found.is_planted[1]
    late, good = (auroc(found.suspicions[name][1], planted) for name in ("late", "good"))
    assert late > good + 0.05  # but for the wrong labels it is the worse one
    trust = trust_detectors(found)
    assert trust.trusted == ("good",)
    assert trust.auroc["good"] > trust.auroc["late"] + AS_GOOD


def test_of_equals_those_are_trusted_that_find_plants_between_classes():
    found, _, _ = make_rounds(easy=lambda wrong, noise: 5 * wrong + noise[0])
    plants = np.flatnonzero(found.is_planted[1])
    hard = plants[:50]  # not found by `easy`
    weights, between = found.weights.copy(), found.most_weights.copy()
    weights[1, hard], between[1, hard] = 0, 1
    found.suspicions["easy"][1, hard] -= 5
    trust = trust_detectors(replace(found, weights=weights, most_weights=between))
    assert abs(trust.auroc["easy"] - trust.auroc["good"]) < AS_GOOD
    assert trust.auroc_between["easy"] < 0.6 < 0.9 < trust.auroc_between["good"]
    assert trust.trusted == ("good",)


def test_places_make_the_area_under_the_curve():
    found, _, _ = make_rounds(coarse=lambda wrong, noise: np.round(noise[0] + wrong))
    random = np.random.default_rng(1)
    weights = found.weights * random.random(found.weights.shape)
    found = replace(found, weights=weights, was_right=random.random(len(found.given)).round(1))
    planted = found.is_planted[1]
    every = np.where(planted, weights[1], found.was_right)
    trust = trust_detectors(found)
    for name, values in found.suspicions.items():
        want = roc_auc_score(planted, values[1], sample_weight=every)
        assert trust.auroc[name] == pytest.approx(want, abs=1e-12)
    # Plants that do not count say nothing; `most_weights` has none.
    assert set(trust.auroc_between.values()) == {0.5}


@pytest.mark.parametrize(("shift", "trusted"), [(4.5, ODDS), (4.1, ODDS), (3.0, "good")])
def test_calibrated_odds_are_trusted_unless_another_beats_them_by_more_than_chance(shift, trusted):
    found, _, _ = make_rounds(**{ODDS: lambda wrong, noise: shift * wrong + noise[0]})
    trust = trust_detectors(found)
    assert trust.trusted[0] == "good"  # of a network alone they are a detector like others
    assert (trust.auroc["good"] - trust.auroc[ODDS] <= AS_GOOD) == (shift == 4.5)
    assert trust_detectors(left_out(found)).trusted == (trusted,)
    # Those of a network the first of the others joins, which errs on other labels.
    assert trust_detectors(of_network(found)).trusted == (ODDS, "good")


def test_odds_of_a_network_that_are_first_themselves_lead_alone():
    found, _, _ = make_rounds(**{ODDS: lambda wrong, noise: 7 * wrong + noise[2]})
    found.suspicions["good"][1, found.is_planted[1]] -= 1.5
    trust = trust_detectors(of_network(found))
    assert trust.trusted == (ODDS,)
    assert trust.knows_pairs
    assert not trust_detectors(left_out(found)).knows_pairs


def test_one_detector_joins_the_odds_of_a_network_however_many_are_alike():
    found, _, _ = make_rounds(
        **{ODDS: lambda wrong, noise: 5 * wrong + noise[0]},
        alike=lambda wrong, noise: 5 * wrong + noise[2],
    )
    assert trust_detectors(found).trusted == ("good", "alike", ODDS)
    assert trust_detectors(of_network(found)).trusted == (ODDS, "good")
    found.suspicions[ODDS][1, found.is_planted[1]] -= 0.8
    assert trust_detectors(found).trusted == ("good", "alike")
    assert trust_detectors(of_network(found)).trusted == (ODDS, "good")


def test_the_detector_that_joins_is_the_one_that_is_as_good_between_classes_too():
    found, _, _ = make_rounds(
        **{ODDS: lambda wrong, noise: 4.1 * wrong + noise[0]},
        alike=lambda wrong, noise: 5.05 * wrong + noise[2],
    )
    hard = np.flatnonzero(found.is_planted[1])[:50]
    between = found.most_weights.copy()
    between[1, hard] = 1
    found.suspicions["alike"][1, hard] -= 0.3
    found.suspicions["alike"][1, found.is_planted[1]] += 0.25
    trust = trust_detectors(of_network(replace(found, most_weights=between)))
    assert trust.auroc["alike"] > trust.auroc["good"]
    assert trust.auroc_between["alike"] < trust.auroc_between["good"]
    assert trust.trusted == (ODDS, "good")


def test_odds_of_a_network_that_find_no_plants_do_not_lead():
    found, _, _ = make_rounds(**{ODDS: lambda wrong, noise: noise[0]})
    trust = trust_detectors(of_network(found))
    assert trust.trusted == ("good",)
    assert not trust.knows_pairs


def test_odds_that_were_not_asked_for_do_not_lead():
    found, _, _ = make_rounds()
    assert trust_detectors(left_out(found)).trusted == ("good",)
    assert trust_detectors(of_network(found)).trusted == ("good",)
    assert not trust_detectors(of_network(found)).knows_pairs


def test_where_no_plant_counts_nothing_beats_the_odds():
    bad, _, _ = make_rounds(**{ODDS: lambda wrong, noise: wrong + noise[0]})
    blank = replace(left_out(bad), weights=np.zeros_like(bad.weights))
    assert trust_detectors(blank).trusted[0] == ODDS


def test_what_is_as_good_beats_no_odds_however_sure():
    found, _, _ = make_rounds(**{ODDS: lambda wrong, noise: noise[1]})
    found = replace(found, most_weights=found.weights)
    found.suspicions["good"][1, found.is_planted[1]] -= 3
    found.suspicions[ODDS][:] = found.suspicions["good"]
    found.suspicions[ODDS][1, found.is_planted[1]] -= 0.01  # each a little lower
    for kind, trusted in ((left_out, (ODDS,)), (of_network, (ODDS, "good"))):
        trust = trust_detectors(kind(found))
        assert 0 < trust.auroc["good"] - trust.auroc[ODDS] < AS_GOOD
        assert trust.trusted == trusted
