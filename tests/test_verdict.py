"""The verdict of an audit: rounds with plants, which detector is trusted, what is flagged."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import rankdata
from sklearn.metrics import log_loss

import noiseaudit as na
from noiseaudit.cleaning_policy import CleaningPolicy
from noiseaudit.cli import main
from noiseaudit.detector import create_detectors
from noiseaudit.errors import UsageError
from noiseaudit.evaluation import auroc
from noiseaudit.label_channel import log_of_probs
from noiseaudit.label_noise import flip_uniform
from noiseaudit.left_out import LeftOut
from noiseaudit.noise_estimate import Witness
from noiseaudit.planted_rounds import ODDS, judged_by_plants, why_no_rounds
from noiseaudit.precision import flag_at_precision
from noiseaudit.run_agreement import HARDER
from noiseaudit.scoring import score_examples
from noiseaudit.seeding import derive_seed
from noiseaudit.training import loop
from noiseaudit.verdict import reach_verdict
from noiseaudit.verdict_presentation import verdict_sentence, verdict_summary
from tests._data import make_rounds as rounds


@pytest.fixture(scope="module")
def audited(noisy_digits, tmp_path_factory):
    out = tmp_path_factory.mktemp("verdict") / "out"
    return na.audit(noisy_digits[0], out=out, epochs=20, threads=1, duplicates=False), out


def test_the_detector_that_finds_the_plants_is_trusted_and_counts_the_wrong_labels():
    found, wrong, true = rounds()
    verdict = reach_verdict(found, np.arange(len(wrong)), 4)
    assert list(verdict.auroc) == ["good", "weak", "blind"]
    assert verdict.trusted == ("good",)
    assert verdict.ranking.detector == "good"
    assert verdict.auroc["good"] > 0.9 > verdict.auroc["weak"]
    assert verdict.estimate.rate.value == pytest.approx(wrong.mean(), rel=0.15)
    order = verdict.ranking.order
    assert (np.diff(verdict.estimate.p_error[order]) <= 1e-12).all()
    assert verdict.threshold.count == verdict.is_flagged.sum()
    assert wrong[verdict.is_flagged].mean() >= 0.9
    # The suggested label is always the true one: its probability is that of being wrong, nearly.
    assert (verdict.suggested[wrong] == true[wrong]).all()
    close = verdict.suggested_prob[wrong] / np.maximum(verdict.estimate.p_error[wrong], 1e-9)
    assert (close > 0.9).all()
    assert (close <= 1).all()


def test_equals_are_combined_and_weak_members_are_left_out():
    found, wrong, _ = rounds(other=lambda wrong, noise: 5 * wrong + noise[0])
    verdict = reach_verdict(found, np.arange(len(wrong)), 4)
    assert set(verdict.trusted) == {"good", "other"}
    assert verdict.ranking.detector == "combined"
    single = [auroc(found.suspicions[name][0], wrong) for name in verdict.trusted]
    assert auroc(verdict.ranking.scores, wrong) > max(single)
    # The values are those of the best, in another order.
    best = np.sort(found.suspicions[verdict.trusted[0]][0])
    np.testing.assert_allclose(np.sort(verdict.ranking.scores), best)


def test_a_detector_that_thinks_a_label_right_says_more_than_one_that_thinks_it_wrong():
    found, wrong, _ = rounds(other=lambda wrong, noise: (5 * wrong + noise[0]).round(1))
    verdict = reach_verdict(found, np.arange(len(wrong)), 4)
    each = [found.suspicions[name][0] for name in verdict.trusted]
    above = [
        (own > own[:, None]).mean(axis=1) + (own == own[:, None]).mean(axis=1) / 2 for own in each
    ]
    assert len(above) == 2  # one of them with equals, which count half
    np.testing.assert_allclose(
        rankdata(verdict.ranking.scores), rankdata(-np.hypot(*above)), atol=1
    )


def test_how_the_plants_are_found_is_told():
    found, wrong, _ = rounds()
    hard = np.where(found.is_planted & (np.arange(len(wrong)) % 2 == 0), 1.0, 0.0)
    verdict = reach_verdict(replace(found, most_weights=hard), np.arange(len(wrong)), 4)
    assert verdict.auroc != verdict.auroc_between
    assert verdict.auroc_between["good"] > 0.9
    assert verdict.told()["auroc_of_plants"] == verdict.auroc
    assert verdict.told()["auroc_of_plants_between_classes"] == verdict.auroc_between


def test_without_evidence_no_number_is_given():
    found, wrong, _ = rounds()
    blind = replace(found, suspicions={"blind": found.suspicions["blind"]})
    assert not reach_verdict(blind, np.arange(len(wrong)), 4).estimate.is_supported
    digits = na.load("digits", limit=900)
    labels = np.random.default_rng(0).integers(0, 10, 900)
    report = na.audit(digits.with_labels(labels), epochs=2, threads=1, duplicates=False)
    assert report.verdict is None
    told = report.manifest["results"]["verdict"]
    assert not told["reached"]
    assert "planted flips are not told well enough" in told["why"]
    assert told["why"] in report.document.notes[0]
    assert report.ranking.detector == "cumulative_loss"
    assert "p_error" not in report.to_frame()


def test_sentences_say_how_many_how_sure_and_what_to_flag():
    found, wrong, _ = rounds()
    verdict = reach_verdict(found, np.arange(len(wrong)), 4)
    rate = verdict.estimate.rate
    count, low, high = (round(share * len(wrong)) for share in rate)
    text = verdict_sentence(verdict)
    assert text.startswith(f"About {count:,} of 3,000 labels are wrong ({rate.value:.1%}, 95%")
    assert f"interval {low:,} to {high:,})" in text
    assert f"the {verdict.threshold.count:,} most suspicious: expected precision 0.9" in text
    none, _, _ = rounds(rate=0.0)
    clean = reach_verdict(none, np.arange(len(wrong)), 4)
    assert verdict_sentence(clean).startswith("Hardly any of 3,000 labels is wrong")
    assert "No label can be flagged" in verdict_sentence(clean)
    assert "good is trusted: as good as any" in verdict_summary(clean, wrong).recommendation
    odds, _, _ = rounds(rate=0.0, **{ODDS: lambda wrong, noise: 9 * wrong + noise[0]})
    led = reach_verdict(odds, np.arange(len(wrong)), 4)
    assert "label_odds and good are trusted: as good" in verdict_summary(led, wrong).recommendation
    alone = verdict_summary(replace(led, trusted=(ODDS,)), wrong).recommendation
    assert alone.startswith("label_odds is trusted: no detector finds the 150 flips planted")
    best = "as good as any at 150 flips planted among the labels, but for 0.002, and of such"
    for trusted, who in (((ODDS, "good"), "good"), ((ODDS,), "it")):
        told = verdict_summary(replace(led, trusted=trusted, knows_pairs=True), wrong)
        why = f"trusted: label_odds alone knows which mistakes are common, and {who} is {best}"
        assert why in told.recommendation
    assert verdict_summary(clean, wrong).cautions == ()
    assert verdict_summary(clean, wrong).basis.startswith("The share of wrong labels rests on plan")
    witnesses = (Witness("fits", 0.3, counts=False), Witness("one", 0.1), Witness("two", 0.2))
    told = replace(clean, estimate=replace(clean.estimate, witnesses=witnesses))
    assert verdict_summary(told, wrong).basis == (
        "The share of wrong labels rests on one (10.0%) and two (20.0%). Not counted: fits (30.0%)."
    )
    unsaid = replace(clean, estimate=replace(clean.estimate, witnesses=()))
    assert verdict_summary(unsaid, wrong).basis == ""
    assert told.told()["witnesses"][0] == {"name": "fits", "rate": 0.3, "counts": False}
    rough = replace(clean, estimate=replace(clean.estimate, most=0.2))
    assert not rough.estimate.is_close
    assert verdict_sentence(rough).startswith("At most 600 of 3,000 labels are wrong (20.0%)")
    assert "for 3,000 labels" in verdict_summary(rough, np.ones(3000, bool)).cautions[0]
    witnesses = (Witness("plants", 0.01, counts=False), Witness(HARDER, 0.1))
    harder = replace(clean, estimate=replace(clean.estimate, witnesses=witnesses))
    (caution,) = verdict_summary(harder, wrong).cautions
    assert "of the others about 30 are wrong. Your decisions" in caution
    assert "about 0 if mistakes fall on any example: a rough" in verdict_sentence(rough)
    both = replace(rough, estimate=replace(rough.estimate, witnesses=witnesses))
    assert "about 0: a rough number" in verdict_sentence(both)
    assert [" Your decisions" in text for text in verdict_summary(both, wrong).cautions] == [0, 1]


def test_what_takes_further_trainings_is_not_judged():
    digits = na.load("digits", limit=300)
    names = ["random", "cumulative_loss", "cscore", "curvature", "self_confidence"]
    judged = judged_by_plants(create_detectors(names), digits)
    assert [item.name for item in judged] == ["cumulative_loss"]
    assert "no detector asked for" in why_no_rounds(create_detectors(["random"]), digits)
    assert "too few" in why_no_rounds(judged, na.load("digits", limit=30))
    alone = digits.with_labels(np.zeros(300, np.int64))
    assert "two classes" in why_no_rounds(judged, alone)


def test_an_audit_opens_with_the_verdict(audited, noisy_digits):
    report, out = audited
    verdict, wrong = report.verdict, noisy_digits[0].labels != noisy_digits[1]
    assert verdict.estimate.rate.value == pytest.approx(wrong.mean(), rel=0.25)  # measured 5%
    assert verdict.estimate.rate.low <= wrong.mean() <= verdict.estimate.rate.high
    assert wrong[verdict.is_flagged].mean() > 0.85
    assert {"cumulative_loss", ODDS} <= set(verdict.auroc)
    assert verdict.trusted[0] == ODDS
    assert "alone knows which mistakes" in report.document.verdict.recommendation
    assert report.document.headline == verdict_sentence(verdict)
    assert report.document.verdict.sentence in report.to_html().replace("&#39;", "'")
    stored = json.loads((out / "manifest.json").read_text())["results"]["verdict"]
    assert stored["rate"] == verdict.estimate.rate.value
    assert stored["flagged"] == verdict.threshold.count
    with (out / "ranking.csv").open() as file:
        first = next(iter(csv.DictReader(file)))
    assert float(first["p_error"]) > 0.9 >= 0.1 > 1 - float(first["p_error"])
    assert first["kind"] == "mislabelled"
    row = int(np.flatnonzero(noisy_digits[0].ids == int(first["sample_id"]))[0])
    assert noisy_digits[1][row] == int(first["suggested_label"])


def test_an_audit_can_ask_predictions_that_have_not_seen_the_label(noisy_digits, monkeypatch):
    asked = []

    def spy(estimate, *_, left_out, support, sure_rate, **__):
        asked.extend([left_out, support, sure_rate])
        return estimate

    monkeypatch.setattr("noiseaudit.verdict.sharpen_estimate", spy)
    na.audit(noisy_digits[0], epochs=1, threads=1, duplicates=False)
    wrong = noisy_digits[0].labels != noisy_digits[1]
    assert asked[0].rate == pytest.approx(wrong.mean(), rel=0.3)
    assert asked[1].wrong < asked[1].contradicted < asked[1].unsteady
    assert 0.7 * wrong.mean() < asked[2] < asked[0].rate


def test_a_round_has_a_seed_of_its_own(noisy_digits, monkeypatch, tmp_path):
    seeds = []

    def spy(dataset, plan, *args, **options):
        seeds.append(plan.seed)
        return score_examples(dataset, plan, *args, **options)

    monkeypatch.setattr("noiseaudit.planted_rounds.score_examples", spy)
    na.audit(noisy_digits[0], out=tmp_path / "o", epochs=1, threads=1, duplicates=False, seed=3)
    assert seeds == [derive_seed(3, "planted-round", 1)]


def rounds_of_an_audit(noisy_digits, monkeypatch, channel):
    """The planted rounds where left-out predictions tell this, and the audit's report."""
    kept = []
    probs = np.full((len(noisy_digits[0]), 10), 0.1, np.float32)
    left_out = LeftOut(np.arange(len(probs)), probs, channel)
    monkeypatch.setattr("noiseaudit.planted_rounds.predict_left_out", lambda _: left_out)

    def spy(rounds, *args, **options):
        kept.append(rounds)
        return reach_verdict(rounds, *args, **options)

    monkeypatch.setattr("noiseaudit.auditing.reach_verdict", spy)
    report = na.audit(noisy_digits[0], epochs=1, threads=1, duplicates=False)
    return kept[0], report


def test_what_is_confused_predictions_tell_that_have_not_seen_the_label(noisy_digits, monkeypatch):
    k = 10
    joint = np.full((k, k), 1e-9)
    joint[np.arange(k), (np.arange(k) + 1) % k] = 0.02  # a label is taken for the next one
    joint += np.eye(k) * (1 - joint.sum()) / k
    channel = na.LabelChannel(3.0, joint / joint.sum(axis=1, keepdims=True), joint, slopes=0.5)
    found, report = rounds_of_an_audit(noisy_digits, monkeypatch, channel)
    assert found.left_out.channel is channel
    plants = found.weights[1] > 0
    to_next = found.labels[1, plants] == (found.given[plants] + 1) % k
    assert to_next.mean() > 0.7  # a quarter goes to any class
    # But the network's probabilities need no other scale.
    asked = replace(found.left_out.believed(found.given), scale=1.0, slopes=1.0)
    want, _ = asked.log_odds(log_of_probs(report.pred_probs), found.given)
    np.testing.assert_allclose(found.suspicions[ODDS][0], want)


@pytest.mark.parametrize("rate", [0.1, 1e-5])
def test_where_they_find_no_wrong_label_plants_are_even(noisy_digits, monkeypatch, rate):
    joint = np.eye(10) * (1 - rate) / 10
    joint[0, 1] = rate  # as left-out predictions leave some of, however few there are
    channel = na.LabelChannel(1.0, joint / joint.sum(axis=1, keepdims=True) + 1e-9, joint)
    found, _ = rounds_of_an_audit(noisy_digits, monkeypatch, channel)
    plants = found.weights[1] > 0
    of_pair = (found.given[plants] == 0) & (found.labels[1, plants] == 1)
    assert (of_pair.mean() > 0.3) == (rate > 0.01)


def test_vectors_have_a_channel_of_their_own_whose_odds_are_calibrated(monkeypatch):
    random = np.random.default_rng(1)
    true = random.integers(0, 4, 3000)
    inputs = (1.9 * random.standard_normal((3000, 6)) + 6 * np.eye(4, 6)[true]).astype(np.float32)
    noisy = na.inject_noise(na.load((inputs, true)), "uniform", rate=0.1, seed=1)
    wrong = noisy.is_corrupted
    monkeypatch.setattr(
        "noiseaudit.verdict.sharpen_estimate", lambda *_, **__: pytest.fail("of networks alone")
    )
    monkeypatch.setattr(
        "noiseaudit.planted_rounds.predict_left_out", lambda _: pytest.fail("has one already")
    )
    found = na.audit(noisy.dataset, epochs=20, threads=1, duplicates=False).verdict.estimate
    assert found.rate.value == pytest.approx(wrong.mean(), rel=0.1)  # measured 8%
    assert log_loss(wrong, found.p_error) < 0.08  # measured 0.05; three times the odds: 0.15


def test_running_again_plants_the_same_and_trains_nothing(audited, noisy_digits, monkeypatch):
    report, out = audited
    monkeypatch.setattr(loop, "_train_epoch", lambda *_: pytest.fail("trained again"))
    again = na.audit(
        noisy_digits[0], out=out, epochs=20, threads=1, duplicates=False, precision=0.999
    )
    same = again.verdict.estimate.p_error
    assert same.tobytes() == report.verdict.estimate.p_error.tobytes()
    assert again.verdict.threshold.count < report.verdict.threshold.count


def test_a_plan_acts_at_a_precision_and_relabels_where_it_is_sure(audited, noisy_digits):
    report, _ = audited
    wrong = noisy_digits[0].labels != noisy_digits[1]
    plan = report.plan.with_policy(CleaningPolicy.parse("precision:0.9", min_per_class=0))
    assert ((plan.actions == "remove") == report.verdict.is_flagged).all()
    sure = CleaningPolicy.parse("precision:0.9", relabel_above=0.8, min_per_class=0)
    plan = report.plan.with_policy(sure)
    relabelled = plan.actions == "relabel"
    assert relabelled.sum() > 50
    assert (plan.new_labels[relabelled] == noisy_digits[1][relabelled]).mean() > 0.9
    assert wrong[plan.actions == "remove"].mean() > 0.8
    without = na.audit(na.load("digits", limit=100), epochs=1, duplicates=False)
    assert without.verdict is None
    assert "too few" in without.document.notes[0]
    with pytest.raises(UsageError, match="needs the verdict"):
        without.plan.with_policy(CleaningPolicy.parse("precision:0.9"))


def test_each_flag_reaches_the_precision():
    p = np.array([0.99, 0.95, 0.7, 0.7, 0.1])
    assert flag_at_precision(p, 0.9).tolist() == [True, True, False, False, False]
    assert flag_at_precision(p, 0.7).tolist() == [True, True, True, True, False]
    assert not flag_at_precision(p, 1.0).any()
    for precision in (0, 1.5, np.nan):
        with pytest.raises(UsageError, match="precision must be in"):
            flag_at_precision(p, precision)


@pytest.mark.parametrize("precision", [1.0, 0.95, 0.9, 0.8, 0.5, 1e-3])
def test_what_is_flagged_is_what_is_counted(precision):
    found, wrong, _ = rounds()
    # 0.8 twice and nearly once more; nothing reaches 1.
    p = np.r_[0.95, 0.8, 0.8, 0.8 - 1e-13, 0.8 - 1e-9, np.linspace(0.7, 0, len(wrong) - 5)]
    verdict = reach_verdict(found, np.arange(len(wrong)), 4)
    estimate = replace(verdict.estimate, p_error=p)
    at = estimate.threshold(precision)
    verdict = replace(verdict, estimate=estimate, precision=precision, threshold=at)
    assert verdict.is_flagged.sum() == at.count
    assert (verdict.is_flagged == (p >= at.p_error)).all()  # of none it is NaN
    assert at.count == {1.0: 0, 0.95: 1, 0.9: 1, 0.8: 4}.get(precision, at.count)


def test_command_says_whom_it_trusts(tmp_path, capsys):
    options = ["--out", str(tmp_path / "o"), "--epochs", "2", "--no-duplicates", "--limit", "900"]
    assert main(["audit", "digits", *options, "--recommend"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "trusted" in shown
    assert "The share of wrong labels rests on" in shown
    page = (tmp_path / "o" / "report.html").read_text(encoding="utf-8")
    assert "The share of wrong labels rests on" in " ".join(page.split())
    assert "flips planted among the labels" in shown
    assert main(["audit", "digits", *options, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert 0 <= told["verdict"]["rate"] <= 1
    assert told["basis"] in shown
    assert told["verdict"]["witnesses"][0]["name"] == "planted flips"
    assert main(["audit", "digits", *options, "--no-verdict", "--recommend"]) == 2
    assert "--no-verdict leaves it out" in capsys.readouterr().err
    assert main(["audit", "digits", *options, "--precision", "1.5"]) == 2
    assert "precision must be in" in capsys.readouterr().err
    assert main(["audit", "digits", *options, "--no-verdict", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["verdict"]
    assert told == {"reached": False, "why": "it was not asked for"}


def test_rounds_of_another_audit_are_made_anew(tmp_path):
    digits = na.load("digits", limit=900)
    options = {"out": tmp_path / "o", "epochs": 1, "threads": 1, "duplicates": False}
    na.audit(digits, **options)
    other = digits.with_labels(flip_uniform(digits.labels, 10, 0.1, seed=0))
    na.audit(other, **options, resume=False, verdict=False)
    assert not (tmp_path / "o" / "planted").exists()
    left = na.audit(other, **options)
    shutil.copytree(tmp_path / "o" / "planted", tmp_path / "planted")
    na.audit(digits, **options, resume=False)
    shutil.rmtree(tmp_path / "o" / "planted")
    shutil.copytree(tmp_path / "planted", tmp_path / "o" / "planted")  # of other labels
    again = na.audit(digits, **options)
    assert again.manifest["results"]["verdict"] != left.manifest["results"]["verdict"]
