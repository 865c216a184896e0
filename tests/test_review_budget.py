"""What is left to find after some were reviewed: known mixtures, decisions on an audit, files."""

import csv
import json

import numpy as np
import pytest

import noiseaudit as na
from noiseaudit.cli import main
from noiseaudit.errors import DataError, OutputError, UsageError

NONE = np.zeros(0, dtype=bool)


def calibrated(n=2000, seed=0):
    """Probabilities that hold, most suspicious first: some 110 wrong."""
    random = np.random.default_rng(seed)
    p = np.sort(np.r_[random.beta(8, 2, n // 20), random.beta(1, 60, n - n // 20)])[::-1]
    return p, random.random(n) < p


def top(p, is_wrong, k, **options):
    return na.review_progress(p, np.arange(k), is_wrong[:k], **options)


def test_what_is_expected_without_decisions_is_p_error():
    p, _ = calibrated()
    found = na.review_progress(p, [], NONE)
    assert (found.found, found.reviewed, found.is_done()) == (0, 0, False)
    assert found.expected_left.value == pytest.approx(p.sum(), rel=0.2)  # measured 10%
    assert found.share_found.high <= 0.01
    assert found.next_rows(3).tolist() == [0, 1, 2]


def test_reviewed_ones_are_known_and_never_asked_for_again():
    p, is_wrong = calibrated()
    rows = np.array([5, 0, 1999, 700])
    found = na.review_progress(p, rows, is_wrong[rows])
    assert found.p_error[rows].tolist() == is_wrong[rows].tolist()
    assert found.is_reviewed.sum() == 4
    for asked in (found.next_rows(2000), found.sample_rows(2000), found.sample_rows(500, seed=3)):
        assert not np.isin(asked, rows).any()
        assert len(np.unique(asked)) == len(asked)
    assert len(found.next_rows(2000)) == len(found.sample_rows(5000)) == 1996
    assert (np.diff(found.p_error[found.next_rows(2000)]) <= 0).all()
    assert found.sample_rows(0).tolist() == found.next_rows(0).tolist() == []


def test_few_decisions_move_little_and_many_much():
    p = np.repeat([0.5, 0.001], [200, 1800])  # but nothing at the top is wrong
    few, many = (na.review_progress(p, np.arange(k), np.zeros(k, bool)) for k in (3, 100))
    assert few.p_error[150] == pytest.approx(0.5, abs=0.05)  # measured 0.502
    assert many.p_error[150] < 0.2  # measured 0.12
    assert many.expected_left.value < 0.2 * few.expected_left.value  # measured 13 and 109
    assert many.expected_left.high < few.expected_left.high


def test_where_p_error_is_blind_a_hundred_decisions_count_what_is_wrong():
    random = np.random.default_rng(0)
    is_wrong = random.random(2000) < 0.8 * np.exp(-np.arange(2000) / 300)  # 12%, the top of them
    p = np.linspace(0.02, 0.0001, 2000)  # but next to none is expected
    rows = np.zeros(0, np.int64)
    for turn in range(10):
        progress = na.review_progress(p, rows, is_wrong[rows])
        drawn = progress.sample_rows(5, seed=turn)
        rows = np.union1d(rows, np.union1d(drawn, progress.next_rows(5)))
    found = na.review_progress(p, rows, is_wrong[rows])
    total = found.found + np.array(found.expected_left)
    assert p.sum() < 0.1 * is_wrong.sum()
    assert total[0] == pytest.approx(is_wrong.sum(), rel=0.25)
    assert total[1] <= is_wrong.sum() <= total[2]


def test_decisions_at_the_top_leave_the_bottom_open_and_random_checks_close_it():
    p, is_wrong = calibrated()
    above = top(p, is_wrong, 110)
    spread = above.expected_left.high - above.expected_left.low
    checked = np.union1d(np.arange(110), above.sample_rows(150, seed=1))
    found = na.review_progress(p, checked, is_wrong[checked])
    assert found.expected_left.high - found.expected_left.low < 0.5 * spread  # measured 0.3
    assert found.expected_left.low <= is_wrong.sum() - found.found <= found.expected_left.high


def test_errors_that_p_error_misses_are_found_by_random_checks_alone():
    p = np.repeat([0.99, 0.0005], [50, 1950])
    is_wrong = np.arange(2000) < 50
    is_wrong[np.random.default_rng(0).choice(np.arange(1000, 2000), 100, replace=False)] = True
    above = top(p, is_wrong, 60)
    assert not above.is_done()
    assert above.plan().checks > 0
    rows = np.union1d(np.arange(60), above.sample_rows(200))
    found = na.review_progress(p, rows, is_wrong[rows])
    left = is_wrong.sum() - found.found
    assert found.expected_left.low <= left <= found.expected_left.high
    assert found.expected_left.low > 30  # measured 58, and 88 are left
    assert found.p_error[~found.is_reviewed].mean() > 0.02  # measured 0.06
    assert not found.is_done(share=0.5)


def test_the_stated_confidence_holds_where_probabilities_do():
    outcomes = []
    for seed in range(12):
        p, is_wrong = calibrated(seed=seed)
        k, found = 0, na.review_progress(p, [], NONE)
        while not found.is_done(0.9, 0.9):
            k += max(10, found.needed(0.9, 0.9) // 2)
            found = top(p, is_wrong, k, seed=seed)
        outcomes.append((found.found >= 0.9 * is_wrong.sum(), k))
    assert sum(ok for ok, _ in outcomes) >= 10  # measured 12 of 12
    assert np.mean([k for _, k in outcomes]) < 1300  # measured 1056


def test_needed_and_plan_agree_with_is_done():
    p, is_wrong = calibrated()
    found = top(p, is_wrong, 300)
    more = found.needed(0.8)
    assert found.is_done(0.8) == (more == 0)
    assert found.needed(0.5) <= found.needed(0.9) <= found.needed(0.99) <= 1700
    plan = found.plan(0.95)
    assert sum(plan) <= found.needed(0.95)
    done = top(p, is_wrong, 2000)
    assert (done.is_done(1, 0.99), done.plan(), done.needed(1)) == (True, (0, 0), 0)
    assert (done.share_found, done.expected_left) == ((1, 1, 1), (0, 0, 0))


def test_equal_probabilities_are_taken_in_the_order_given():
    found = na.review_progress(np.zeros(40), [0], np.array([False]))
    assert found.next_rows(2).tolist() == [1, 2]


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("p", [0.0, 1.0])
def test_a_handful_of_examples(n, p):
    open_ = na.review_progress(np.full(n, p), [], NONE)
    assert 1 <= open_.needed() <= n
    # p_error was as wrong as can be.
    found = na.review_progress(np.full(n, p), np.arange(n), np.full(n, p == 0))
    assert found.found == n * (p == 0)
    assert found.is_done()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([], [], NONE), "n at least 1"),
        (([0.5, np.nan], [], NONE), "finite"),
        (([0.5, 1.5], [], NONE), r"in \[0, 1\]; outside in 1 row, first 1"),
        (([0.5, 0.5], [2], [True]), "integers in"),
        (([0.5, 0.5], [0.0], [True]), "integers in"),
        (([0.5, 0.5], [0], [True, False]), "one shape"),
        (([0.5, 0.5], [0], [1]), "must be bool"),
        (([0.5, 0.5], [1, 1], [True, False]), "must not repeat"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, words):
    with pytest.raises(DataError, match=words):
        na.review_progress(*arguments)


def test_options_that_cannot_be():
    found = na.review_progress([0.5, 0.1], [], NONE)
    for call in (
        lambda: na.review_progress([0.5], [], NONE, confidence=1),
        lambda: found.is_done(0), lambda: found.is_done(1.1), lambda: found.is_done(0.9, 1),
        lambda: found.needed(2), lambda: found.plan(0.9, 0), lambda: found.next_rows(-1),
        lambda: found.sample_rows(-1),
    ):  # fmt: skip
        with pytest.raises(UsageError, match="must"):
            call()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An audit of 120 digits, with a column p_error."""
    out = tmp_path_factory.mktemp("review") / "audit"
    report = na.audit(na.load("digits", limit=120), out=out, epochs=1, duplicates=False)
    rows = list(csv.DictReader((out / "ranking.csv").open(newline="", encoding="utf-8")))
    for rank, row in enumerate(rows):
        row["p_error"] = 0.8 * 0.9**rank
    write(out / "ranking.csv", rows)
    return report, out


def write(path, rows, delimiter=","):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def save(report, path, actions, **changes):
    """What the report saves: decisions on its first suspects."""
    suspects = report.document.suspects
    saved = {
        "kind": "noiseaudit decisions", "format": 1, "data": report.document.data_digest,
        "labels": report.document.labels_digest,
        "decisions": [
            {
                "sample_id": s.sample_id, "given_label": s.given_label, "action": action,
                "new_label": str((int(s.given_label) + 1) % 10) if action == "relabel" else "",
            }
            for s, action in zip(suspects, actions, strict=False)
        ],
    }  # fmt: skip
    path.write_text(json.dumps(saved | changes))
    return str(path)


def test_report_says_how_far_the_review_is(folder, tmp_path, capsys):
    report, out = folder
    decisions = save(report, tmp_path / "d.json", ["relabel", "remove", "keep", "review"])
    assert main(["report", str(out), "--decisions", decisions]) == 0
    sentence, page, table = capsys.readouterr().out.splitlines()
    assert sentence.startswith("3 reviewed, 2 wrong; about ")
    assert "to have found 95% with 90% confidence" in sentence
    assert (page, table) == (str(out / "report.html"), str(out / "review.csv"))
    rows = read(out / "review.csv")
    decided = {int(r["sample_id"]): (r["p_error"], r["decision"]) for r in rows if r["decision"]}
    first = [s.sample_id for s in report.document.suspects[:3]]
    wanted = [("1.0", "relabel"), ("1.0", "remove"), ("0.0", "keep")]
    assert decided == dict(zip(first, wanted, strict=True))
    assert [r["reviewed"] for r in rows].count("True") == 3
    p = [float(r["p_error"]) for r in rows]
    assert (p, len(p)) == (sorted(p, reverse=True), 120)
    assert {r["next"] for r in rows if r["reviewed"] == "True"} == {""}

    # The table, with one more decision, tells the same and more.
    rows[5]["decision"] = " Keep"
    write(tmp_path / "more.csv", rows, delimiter=";")
    words = ["--decisions", str(tmp_path / "more.csv"), "--json", "--share", "0.5"]
    assert main(["report", str(out), *words]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["reviewed"], told["wrong"], told["share"]) == (4, 2, 0.5)
    assert told["files"]["review"] == str(out / "review.csv")
    marked = [r["next"] for r in read(out / "review.csv")]
    assert marked.count("probable") == told["next"]["probable"]
    assert set(told["expected_left"]) == {"value", "low", "high"}
    assert [r["decision"] for r in read(out / "review.csv")].count("relabel") == 1


def test_all_reviewed_is_done(folder, tmp_path):
    _, out = folder
    plan = na.read_audit_plan(out)
    names = plan.class_names
    rows = [
        {"sample_id": i, "given_label": names[j], "decision": "remove" if i % 9 == 0 else "keep"}
        for i, j in zip(plan.ids, plan.labels, strict=True)
    ]
    write(tmp_path / "all.csv", rows)
    found = na.review_audit(out, tmp_path / "all.csv")
    assert found.is_done
    assert "0 [0, 0] wrong labels are left; 100% [100, 100] found; every" in found.sentence()


def test_decisions_that_do_not_fit_the_audit(folder, tmp_path, capsys):
    report, out = folder
    before = (out / "report.html").read_bytes()
    cases = {
        "another audit": save(report, tmp_path / "other.json", ["keep"], data="x"),
        "cannot be read": str(tmp_path / "absent.csv"),
    }
    for words, text in {
        "no column 'given_label'": "sample_id,decision\n1,keep\n",
        "of no example": "sample_id,given_label,decision\n99999,1,keep\n",
        "must be of keep": "sample_id,given_label,decision\n{id},{label},perhaps\n",
        "when it was labelled": "sample_id,given_label,decision\n{id},none,keep\n",
        "must be a number": "sample_id,given_label,decision\nx,1,keep\n",
    }.items():
        first = report.document.suspects[0]
        path = tmp_path / f"{len(cases)}.csv"
        path.write_text(text.format(id=first.sample_id, label=first.given_label))
        cases[words] = str(path)
    for words, path in cases.items():
        assert main(["report", str(out), "--decisions", path]) == 1
        assert words in capsys.readouterr().err
    assert main(["report", str(out), "--decisions", cases["another audit"], "--share", "2"]) == 1
    good = save(report, tmp_path / "good.json", ["keep"])
    assert main(["report", str(out), "--decisions", good, "--share", "2"]) == 2
    assert (out / "report.html").read_bytes() == before


def test_an_audit_without_error_probabilities_says_what_to_do(folder, tmp_path):
    report, out = folder
    decisions = save(report, tmp_path / "d.json", ["keep"])
    kept = (out / "ranking.csv").read_text()
    rows = read(out / "ranking.csv")
    try:
        write(out / "ranking.csv", rows[1:])
        with pytest.raises(OutputError, match="lacks or repeats"):
            na.review_audit(out, decisions)
        rows[3]["p_error"] = ""
        write(out / "ranking.csv", rows)
        with pytest.raises(DataError, match="no p_error for some"):
            na.review_audit(out, decisions)
        for row in rows:
            del row["p_error"]
        write(out / "ranking.csv", rows)
        with pytest.raises(DataError, match="no column 'p_error': it takes an audit that reached"):
            na.review_audit(out, decisions)
    finally:
        (out / "ranking.csv").write_text(kept)
    with pytest.raises(OutputError, match="holds no audit"):
        na.review_audit(tmp_path, decisions)
