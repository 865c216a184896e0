"""`noiseaudit memorization`: what it writes, keeps, reuses and refuses."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

import noiseaudit as na
from noiseaudit.cli import main
from noiseaudit.errors import (
    DataError,
    ManifestMismatchError,
    OutputError,
    UnknownNameError,
    UsageError,
)
from noiseaudit.memorization import stage
from noiseaudit.memorization.findings import Analysis, judge_effect
from noiseaudit.memorization.presentation import state_verdict
from noiseaudit.memorization.profile import ANALYSES, MemorizationProfile

SMOKE = {"preset": "smoke", "num_seeds": 2, "device": "cpu"}


@pytest.fixture(scope="module")
def digits():
    return na.load("digits", limit=200)


@pytest.fixture(scope="module")
def finished(digits, tmp_path_factory):
    out = tmp_path_factory.mktemp("memorization") / "out"
    return out, na.memorization_profile(digits, out=out, **SMOKE)


def test_writes_what_it_found(finished, digits):
    out, profile = finished
    assert [analysis.name for analysis in profile.analyses] == list(ANALYSES)
    assert {path.name for path in out.iterdir()} >= {
        "findings.csv", "report.html", "report.json", "manifest.json", "analyses", "figures",
    }  # fmt: skip
    with (out / "findings.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(len(analysis.findings) for analysis in profile.analyses)
    assert [float(row["effect"]) if row["effect"] else None for row in rows] == [
        finding.effect for analysis in profile.analyses for finding in analysis.findings
    ]
    page = (out / "report.html").read_text()
    for analysis in profile.analyses:
        assert f'<section id="{analysis.name}"' in page
    assert page.count("data:image/png") == len(list((out / "figures").glob("*.png")))
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["status"] == "done"
    assert manifest["config"]["data"] == digits.fingerprint
    (out / "report.html").unlink()
    assert na.rebuild_report(out).read_text() == page


def refuse(*_, **__):
    raise AssertionError("run again")


def test_a_finished_analysis_is_not_run_again(finished, digits, monkeypatch):
    out, profile = finished
    with monkeypatch.context() as patch:
        patch.setattr("noiseaudit.memorization.profile.analyze", refuse)
        assert na.memorization_profile(digits, out=out, **SMOKE) == profile
        (out / "analyses" / "capacity.json").write_text("{")  # damaged: only this one again
        with pytest.raises(AssertionError):
            na.memorization_profile(digits, out=out, **SMOKE)
    again = na.memorization_profile(digits, out=out, analyses=["capacity"], **SMOKE)
    assert [analysis.name for analysis in again.analyses] == ["capacity"]
    same = [replace(item, seconds=0.0) for item in profile.analyses if item.name == "capacity"]
    assert [replace(item, seconds=0.0) for item in again.analyses] == same
    page = (out / "report.html").read_text()
    assert '<section id="regularizers"' in page  # what was there stays on the page
    with pytest.raises(ManifestMismatchError, match="seeds"):
        na.memorization_profile(digits, out=out, seed=5, **SMOKE)


def test_what_is_finished_is_kept_when_it_is_stopped(digits, tmp_path, monkeypatch):
    real = stage.profile_memorization

    def stopped(*arguments, on_result, **options):
        def once(analysis):
            on_result(analysis)
            raise KeyboardInterrupt

        return real(*arguments, on_result=once, **options)

    with monkeypatch.context() as patch:
        patch.setattr(stage, "profile_memorization", stopped)
        with pytest.raises(KeyboardInterrupt):
            na.memorization_profile(digits, out=tmp_path / "out", **SMOKE)
    assert [path.stem for path in (tmp_path / "out" / "analyses").iterdir()] == [ANALYSES[0]]
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["status"] == "running"
    with pytest.raises(OutputError, match="not finished"):
        na.rebuild_report(tmp_path / "out")


def test_command_line(tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [
        "memorization",
        "digits",
        "--limit",
        "100",
        "--preset",
        "smoke",
        "--num-seeds",
        "1",
    ]
    arguments += ["--analyses", "easy_examples,capacity", "--out", str(out)]
    assert main([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [analysis["name"] for analysis in told["analyses"]] == ["easy_examples", "capacity"]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "it measures nothing" in shown
    assert "report.html" in shown.replace("\n", "")
    assert main([*arguments, "--analyses", "capcity"]) == 2
    assert "did you mean 'capacity'" in capsys.readouterr().err


def test_what_it_refuses(tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean 'quick'"):
        na.memorization_profile("digits", preset="quik")
    with pytest.raises(UsageError, match="num_seeds"):
        na.memorization_profile("digits", num_seeds=0)
    with pytest.raises(UsageError, match="threads"):
        na.memorization_profile("digits", threads=0)
    with pytest.raises(UsageError, match="analyses is empty"):
        na.memorization_profile("digits", analyses=[])
    few = na.LabeledDataset(np.zeros((9, 3), np.float32), np.arange(9) % 2, ("a", "b"))
    with pytest.raises(DataError, match="50"):
        na.memorization_profile(few, preset="smoke")


def test_the_verdict_in_words():
    finding = judge_effect("f", "{effect} {interval}", [1.0, 1.1, 0.9])

    def profile(held, preset="quick", seeds=5, names=ANALYSES):
        analyses = [
            Analysis(name, "t", (replace(finding, reproduced=i < held),), ())
            for i, name in enumerate(names)
        ]
        return MemorizationProfile("d", preset, tuple(range(seeds)), tuple(analyses))

    assert ANALYSES[-1] == "regularizers"  # which says nothing of the data, and does not count
    assert state_verdict(profile(5)).startswith("Networks learn these labels")
    assert "5 of 7" in state_verdict(profile(5))
    assert state_verdict(profile(2)).startswith("To networks these labels look much like noise")
    assert state_verdict(profile(4)).startswith("Between")
    for part in (profile(8, seeds=4), profile(1, names=ANALYSES[:1])):
        assert "a verdict takes all analyses and 5 seeds" in state_verdict(part)
    assert "measures nothing" in state_verdict(profile(8, preset="smoke"))
