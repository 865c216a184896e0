"""Seeding, manifests, names, errors and the public surface."""

import importlib
import subprocess
import sys

import numpy as np
import pytest
import torch

import noiseaudit as na
from noiseaudit._validation import find_rows
from noiseaudit.device import cpu_threads, select_device
from noiseaudit.errors import (
    DataError,
    ManifestMismatchError,
    OutputError,
    UnknownNameError,
    UsageError,
    check_name,
)
from noiseaudit.manifest import differences, package_versions, read_manifest, require_same
from noiseaudit.seeding import derive_seed, generator, isolated_torch_rng, torch_generator


def test_streams_are_named_and_fixed_for_good():
    # The value is part of the determinism contract: a change of it breaks stored runs.
    assert derive_seed(0, "data-order", 3) == 3258465561789468169
    names = [(0, "a"), (1, "a"), (0, "b"), (0, "a", 1), (0, "a", "1"), (0, "a1")]
    assert len({derive_seed(*name) for name in names}) == len(names)
    assert generator(5, "x").random() == generator(5, "x").random()
    one, two = (torch.rand(2, generator=torch_generator(5, "x")) for _ in range(2))
    assert torch.equal(one, two)


def test_isolated_rng_leaves_the_global_generator_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with isolated_torch_rng(0, "weights"):
        inside = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    with isolated_torch_rng(0, "weights"):
        assert torch.equal(torch.rand(3), inside)


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(UnknownNameError, match="unknown model 'resnet81'; did you mean 'resnet18'"):
        check_name("resnet81", ["mlp", "resnet18"], "model")
    with pytest.raises(UnknownNameError, match=r"^unknown model 'qqq'; valid: mlp, resnet18$"):
        check_name("qqq", ["resnet18", "mlp"], "model")


def test_bad_input_errors_are_value_errors_too():
    assert issubclass(DataError, ValueError)
    assert issubclass(UsageError, ValueError)
    assert issubclass(ManifestMismatchError, OutputError)


def test_device_and_threads():
    assert select_device("cpu").type == "cpu"
    with pytest.raises(UnknownNameError, match="did you mean 'cuda'"):
        select_device("cudda")
    before = torch.get_num_threads()
    with cpu_threads(2) as count:
        assert count == torch.get_num_threads() == 2
    assert torch.get_num_threads() == before
    with pytest.raises(UsageError, match="at least 1; got 0"), cpu_threads(0):
        pass


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_cuda_on_a_machine_without_it_is_a_usage_error():
    with pytest.raises(UsageError, match="no CUDA device"):
        select_device("cuda")


def test_manifest_differences_are_listed_one_by_one(tmp_path):
    stored = {"seed": 0, "recipe": {"epochs": 3, "crop": [1, 2]}, "gone": 1}
    wanted = {"seed": 1, "recipe": {"epochs": 5, "crop": (1, 2)}, "new": None}
    assert differences(stored, wanted) == [
        "gone: stored 1, now nothing",
        "recipe.epochs: stored 3, now 5",
        "seed: stored 0, now 1",
    ]
    with pytest.raises(
        ManifestMismatchError, match=r"recipe\.epochs: stored 3, now 5(.|\n)*--no-r"
    ):
        require_same(stored, wanted, tmp_path)
    require_same(stored, dict(stored), tmp_path)


def test_manifest_that_is_missing_or_broken(tmp_path):
    assert read_manifest(tmp_path / "manifest.json") is None
    (tmp_path / "manifest.json").write_text("not json")
    with pytest.raises(OutputError, match="cannot be read as JSON"):
        read_manifest(tmp_path / "manifest.json")


def test_versions_name_what_can_change_a_result():
    versions = package_versions()
    assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert versions["numpy"] == np.__version__


def test_importing_the_package_imports_neither_torch_nor_numpy():
    code = "import sys, noiseaudit; print({'torch', 'numpy', 'pandas'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"


def test_help_imports_neither_torch_nor_pandas():
    code = (
        "import sys; from noiseaudit.cli import main; code = main(['audit', '--help']); "
        "print(code, {'torch', 'numpy', 'pandas'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "0 set()"


def test_public_names_exist_and_are_the_same_object_twice():
    for name in na.__all__:
        assert getattr(na, name) is getattr(na, name)
    # Resolving a name imports its module; a module of the same name would now shadow it.
    for name in na.__all__:
        assert not isinstance(getattr(na, name), type(sys)), name
    with pytest.raises(AttributeError, match="no attribute 'aduit'"):
        _ = na.aduit


def test_no_module_bears_a_public_functions_name():
    for name in na.__all__:
        if not name.startswith("_"):
            with pytest.raises(ModuleNotFoundError):
                importlib.import_module(f"noiseaudit.{name}")


def test_rows_of_ids():
    ids = np.array([30, 10, 20])
    assert find_rows(ids, np.array([10, 30, 10])).tolist() == [1, 0, 1]
    with pytest.raises(DataError, match="unknown sample ids in 1 row, first 1: 25"):
        find_rows(ids, np.array([10, 25]))


def test_results_show_themselves_in_a_notebook_and_escape_what_they_show():
    hostile = "<script>alert(1)</script>"
    names = ("a", hostile)
    labels = np.arange(40) % 2
    vectors = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    vectors[1] = vectors[0]
    data = na.LabeledDataset(vectors, labels, names)
    report = na.audit(data, epochs=1, threads=1)
    shown = [
        report.ranking, report.plan, na.find_duplicates(data),
        na.memorization_profile("digits", preset="smoke", num_seeds=1, analyses=["capacity"]),
        na.run_experiment("digits", rates=(0.1,), seeds=(0,), epochs=1, detectors=["random"]),
        na.CScores(np.arange(3), np.zeros(3, int), np.array([0.5, np.nan, 0.1])),
    ]  # fmt: skip
    pages = [result._repr_html_() for result in shown]
    assert all("<table" in page for page in pages)
    assert all("<script" not in page for page in pages)
    assert "&lt;script" in pages[2]
