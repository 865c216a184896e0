"""The README's Python runs as written, its tables are current, benchmarks run in smoke form."""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

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


def test_readme_tables_are_what_the_results_give():
    done = subprocess.run([sys.executable, str(BENCHMARKS / "tables.py"), "--check"])
    assert done.returncode == 0, "run: python benchmarks/tables.py"


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("recorder_overhead.py", ["--preset", "smoke"]),
        ("detection.py", ["--preset", "smoke", "--threads", "1"]),
        ("curvature.py", ["--preset", "smoke", "--threads", "1"]),
        ("curvature.py", ["--preset", "gpu", "--parts", "table", "--smoke", "--threads", "1"]),
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


def test_spiral_notebook(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    stored = json.loads((ROOT / "notebooks" / "curvature_spiral.ipynb").read_text())
    names = {}
    for cell in stored["cells"]:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"]).replace("EPOCHS = 150", "EPOCHS = 60")
            exec(source.replace("40, 150)", "40, 60)"), names)  # one cell after the other
    names["plt"].close("all")
    assert len(names["draws"]) == 3
    for curves, *_ in names["draws"]:  # it rises while labels are fitted, and falls when they are
        smooth = np.convolve(curves["curvature"], np.ones(5) / 5, mode="valid")
        fitted = np.flatnonzero(curves["loss"] < 0.1)[0]
        peak = smooth[:fitted].max()
        assert smooth[0] < 0.8 * peak
        assert smooth[fitted:].min() < peak / 5
