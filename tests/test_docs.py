"""The README's Python runs as written, its tables are current, benchmarks run in smoke form."""

import ast
import json
import re
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest

import noiseaudit as na

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BENCHMARKS = ROOT / "benchmarks"


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL))
def test_python_in_the_readme_runs_as_written(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})
    assert list(tmp_path.iterdir()) == []


def test_readme_names_every_command_and_detector():
    from noiseaudit.detector import detector_types

    for name in detector_types():
        assert f"`{name}`" in README


def test_readme_tables_are_what_the_results_give(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = runpy.run_path(str(BENCHMARKS / "tables.py"))
    assert module["main"](["--check"]) == 0, "run: python benchmarks/tables.py"


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("recorder_overhead.py", ["--preset", "smoke"]),
        ("threads.py", ["--preset", "smoke"]),
        ("costs.py", ["--preset", "smoke", "--parts", "digits"]),
        ("detection.py", ["--preset", "smoke", "--threads", "1"]),
        ("curvature.py", ["--preset", "smoke", "--threads", "1"]),
        ("curvature.py", ["--preset", "gpu", "--parts", "table", "--smoke", "--threads", "1"]),
        ("cscores.py", ["--preset", "smoke", "--workers", "1"]),
        ("duplicates.py", ["--preset", "smoke"]),
        ("memorization_profile.py", ["--preset", "smoke"]),
        ("proxies.py", ["--preset", "smoke", "--threads", "1"]),
        ("leave_one_out.py", ["--preset", "smoke"]),
        ("noise_rate.py", ["--preset", "smoke"]),
        ("verdict.py", ["--preset", "smoke"]),
        ("flag_reasons.py", ["--preset", "smoke"]),
        ("review_budget.py", ["--preset", "smoke"]),
        ("proxies.py", ["--preset", "gpu", "--parts", "agreement", "--smoke", "--threads", "1"]),
        ("cscores.py", ["--preset", "gpu", "--parts", "agreement,dynamics", "--smoke"]),
        (
            "detection.py",
            ["--preset", "gpu", "--tasks", "gpu_cifar10n,gpu_cifar100_200", "--smoke"],
        ),
    ],
)
def test_benchmarks_run_in_smoke_form(script, arguments, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = runpy.run_path(str(BENCHMARKS / script))
    monkeypatch.chdir(tmp_path)  # a benchmark may keep its cells below the working folder
    path = module["main"](arguments, tmp_path)
    assert path.parent == tmp_path
    assert "versions" in path.read_text()


@pytest.mark.parametrize(
    ("name", "smaller"),
    [
        (
            "audit_and_clean",
            {"EPOCHS = 30": "EPOCHS = 20", 'load("digits")': 'load("digits", limit=600)'},
        ),
        ("record_your_training", {"EPOCHS = 30": "EPOCHS = 5"}),
        (
            "benchmark_detectors",
            {
                "(0.05, 0.2), (0, 1, 2), 20": "(0.1,), (0,), 3",
                'SOURCE = "digits"': 'SOURCE = na.load("digits", limit=300)',
            },
        ),
    ],
)
def test_notebooks(name, smaller):
    stored = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
    code = [cell for cell in stored["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    names, shown = {}, []
    for cell in code:
        source = "".join(cell["source"])
        for whole, part in list(smaller.items()):
            if whole in source:
                source = source.replace(whole, part)
                del smaller[whole]
        *before, last = ast.parse(source).body
        is_shown = isinstance(last, ast.Expr)
        exec(compile(ast.Module(before if is_shown else [*before, last], []), name, "exec"), names)
        if is_shown:
            value = eval(compile(ast.Expression(last.value), name, "eval"), names)
            shown.append(value._repr_html_() if hasattr(value, "_repr_html_") else str(value))
    assert smaller == {}
    assert shown
    assert all(shown)
    if name == "audit_and_clean":
        assert int(shown[-1].strip("'").split()[0]) >= 50  # measured 59
        shutil.rmtree(names["work"])


def test_spiral_notebook(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    stored = json.loads((ROOT / "notebooks" / "curvature_spiral.ipynb").read_text())
    names = {}
    for cell in stored["cells"]:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"]).replace("EPOCHS = 150", "EPOCHS = 60")
            source = source.replace("40, 150)", "40, 60)").replace("range(3)", "range(2)")
            exec(source, names)  # one cell after the other
    names["plt"].close("all")
    assert len(names["draws"]) == 2
    for curves, *_ in names["draws"]:  # it rises while labels are fitted, and falls when they are
        smooth = np.convolve(curves["curvature"], np.ones(5) / 5, mode="valid")
        fitted = np.flatnonzero(curves["loss"] < 0.1)[0]
        peak = smooth[:fitted].max()
        assert smooth[0] < 0.8 * peak
        assert smooth[fitted:].min() < peak / 5


def test_agreement_with_published_memorization_scores(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = runpy.run_path(str(BENCHMARKS / "_memorization.py"))
    labels = np.arange(200) % 4
    data = na.LabeledDataset(np.zeros((200, 8, 8), np.uint8), labels, ("a", "b", "c", "d"))
    memorized = np.linspace(0, 1, 200) ** 4
    np.savez(tmp_path / "fz_cifar100.npz", mem=memorized, labels=labels)
    by_epoch = np.stack([memorized, memorized[::-1], 3 * memorized])
    found = module["beside_published"](by_epoch, tmp_path, data)
    assert found["cosine_by_epoch"][0] == pytest.approx(1)
    one, two, three = found["cosine_cumulative"]
    assert two < three < one == pytest.approx(1)
    squared = module["agreement"](memorized**2, memorized)
    assert squared["spearman"] == pytest.approx(1)
    assert squared["pearson"] < squared["cosine"] < 0.99
    mean, square = memorized.mean(), (memorized**2).mean()
    assert found["all"]["cosine_of_a_constant"] == pytest.approx(mean / square**0.5)
    np.savez(tmp_path / "fz_cifar100.npz", mem=memorized, labels=labels[::-1])
    with pytest.raises(SystemExit, match="other examples"):
        module["beside_published"](by_epoch, tmp_path, data)


def test_conflicting_pairs_are_near_copies_with_other_labels(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = runpy.run_path(str(BENCHMARKS / "_memorization.py"))
    pictures = np.random.default_rng(0).integers(0, 255, (6, 8, 8, 3), dtype=np.uint8)
    pictures[3] = pictures[0] // 2 * 2  # a near copy
    pictures[4] = pictures[1]
    labels = np.array([0, 1, 0, 1, 1, 0])  # 0 and 3 differ, 1 and 4 agree
    data = na.LabeledDataset(pictures, labels, ("a", "b"))
    assert module["conflicting_pairs"](data).tolist() == [[0, 3]]
    counts = module["among_the_highest"](np.array([9, 1, 2, 3, 4, 5]), np.array([[0, 3]]))
    assert counts == {"pairs": 1, "pictures": 2, "in_top_60": 2, "in_top_100": 2}
