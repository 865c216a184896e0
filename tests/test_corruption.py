import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noiseaudit.corruption import (
    NOISE_MODELS,
    Corruption,
    apply_corruption,
    inject_noise,
    parse_noise,
)
from noiseaudit.dataset import LabeledDataset, Skipped
from noiseaudit.errors import DataError, UnknownNameError, UsageError
from noiseaudit.label_noise import flip_uniform
from noiseaudit.loaders import load

NAMES = ("ant", "bee", "cat")
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def vectors(n=60, k=3, **more):
    """Vectors that tell their row, labels 0..k-1 round, ids 100, 101, ... in falling order."""
    labels = np.arange(n) % k
    inputs = np.stack([np.arange(n), labels * 10], axis=1).astype(np.float32)
    names = NAMES if k == 3 else tuple(f"c{i}" for i in range(k))
    settings = {"ids": 100 + np.arange(n)[::-1], "name": "toy", **more}
    return LabeledDataset(inputs, labels, names, **settings)


def pictures(shape, n=12, seed=0, **more):
    inputs = np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)
    return LabeledDataset(inputs, np.arange(n) % 3, NAMES, **more)


def donor(n=40):
    return -np.arange(2 * n, dtype=np.float32).reshape(n, 2) - 1


CALLS = {
    "uniform": {"rate": 0.2},
    "uniform_any": {"rate": 0.2},
    "pair": {"rate": 0.2},
    "asymmetric": {"rate": 0.2, "class_map": {"ant": "bee"}},
    "confusion": {"matrix": [[0.8, 0.2, 0], [0, 0.8, 0.2], [0.2, 0, 0.8]]},
    "instance": {"rate": 0.2},
    "human": {"labels": np.arange(60) % 2},
    "duplicates": {"rate": 0.2},
    "out_of_distribution": {"rate": 0.2, "donor": donor()},
}
each_model = pytest.mark.parametrize("model", NOISE_MODELS)


def same(a: Corruption, b: Corruption) -> bool:
    return (
        a.dataset.fingerprint == b.dataset.fingerprint
        and np.array_equal(a.clean_labels, b.clean_labels)
        and np.array_equal(a.is_corrupted, b.is_corrupted)
        and (a.model, a.rate, a.seed, a.options, a.fingerprint)
        == (b.model, b.rate, b.seed, b.options, b.fingerprint)
        and (a.copied_ids is None) == (b.copied_ids is None)
        and (a.copied_ids is None or np.array_equal(a.copied_ids, b.copied_ids))
    )


# --- what every model promises ---


def test_every_model_has_a_call_here():
    assert tuple(CALLS) == NOISE_MODELS


@each_model
def test_the_key_says_which_labels_are_wrong_and_what_they_were(model):
    clean = vectors()
    corruption = inject_noise(clean, model, seed=3, **CALLS[model])
    noisy = corruption.dataset
    assert corruption.is_corrupted.any()
    assert np.array_equal(corruption.is_corrupted, noisy.labels != corruption.clean_labels)
    assert np.array_equal(corruption.clean_labels[:60], clean.labels)
    assert np.array_equal(noisy.inputs[:60], clean.inputs)
    assert np.array_equal(noisy.ids[:60], clean.ids)
    assert (corruption.model, corruption.seed) == (model, 3)
    assert corruption.fingerprint == clean.fingerprint
    assert corruption.clean_labels.dtype == np.int64
    assert corruption.is_corrupted.dtype == bool
    json.dumps(corruption.options)  # plain


@each_model
def test_the_source_is_left_alone_and_a_seed_decides_everything(model):
    clean = vectors()
    before = clean.labels.copy(), clean.inputs.copy()
    first = inject_noise(clean, model, seed=3, **CALLS[model])
    assert same(first, inject_noise(clean, model, seed=3, **CALLS[model]))
    assert np.array_equal(clean.labels, before[0])
    assert np.array_equal(clean.inputs, before[1])
    if model != "human":
        other = inject_noise(clean, model, seed=4, **CALLS[model])
        assert other.dataset.fingerprint != first.dataset.fingerprint


@each_model
def test_rate_0_corrupts_nothing(model):
    clean = vectors()
    call = {**CALLS[model], "rate": 0}
    if model == "human":
        call = {"labels": clean.labels}
    corruption = inject_noise(clean, model, **call)
    assert not corruption.is_corrupted.any()
    assert corruption.rate == 0
    assert corruption.dataset.fingerprint == clean.fingerprint


@each_model
@pytest.mark.parametrize("n", [0, 1, 2])
def test_tiny_datasets(model, n):
    call = dict(CALLS[model])
    if model == "human":
        call["labels"] = np.zeros(n, int)
    corruption = inject_noise(vectors(n), model, **call)
    assert len(corruption.dataset) == len(corruption.is_corrupted)
    assert np.isfinite(corruption.rate)


@each_model
def test_two_classes_and_an_absent_one(model):
    labels = np.array([0, 0, 0, 0, 2, 2, 2, 2, 2, 2])
    inputs = np.eye(10, 2, dtype=np.float32)
    clean = LabeledDataset(inputs, labels, NAMES)
    call = {**CALLS[model]}
    if model == "human":
        call["labels"] = labels[::-1]
    n = len(inject_noise(clean, model, **call).dataset)
    assert n >= len(labels)
    two = LabeledDataset(inputs, labels // 2, ("no", "yes"))
    call |= {"asymmetric": {"class_map": {0: 1}}, "confusion": {"matrix": np.eye(2)}}.get(model, {})
    if model == "human":
        call["labels"] = ["no"] * 10
    inject_noise(two, model, **call)


@each_model
def test_saved_and_applied_again_it_is_the_same(model, tmp_path):
    clean = vectors(split=np.array(["train", "test", "train"] * 20))
    corruption = inject_noise(clean, model, seed=3, **CALLS[model])
    corruption.save(tmp_path / "noise.npz")
    again = Corruption.load(tmp_path / "noise.npz", vectors(split=clean.split))
    assert same(corruption, again)
    assert np.array_equal(corruption.dataset.split, again.dataset.split)
    with np.load(tmp_path / "noise.npz", allow_pickle=False) as stored:
        assert ("planted_inputs" in stored) == (model == "out_of_distribution")


@each_model
def test_unknown_options_are_refused(model):
    with pytest.raises(UsageError, match=rf"{model} does not take strength; it"):
        inject_noise(vectors(), model, **CALLS[model], strength=2)


@pytest.mark.parametrize("model", [model for model in NOISE_MODELS if "rate" in CALLS[model]])
@pytest.mark.parametrize("rate", [-0.1, 1.5, np.nan, "0.1"])
def test_bad_rates_are_refused(model, rate):
    with pytest.raises(UsageError, match=r"rate must be a number in \[0, 1\]; got"):
        inject_noise(vectors(), model, **{**CALLS[model], "rate": rate})


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ("uniform", {}, r"uniform needs a rate in \[0, 1\]"),
        ("duplicates", {}, "duplicates needs a rate"),
        ("human", {}, "human needs labels"),
        ("confusion", {"rate": 0.1}, "confusion needs matrix"),
        ("out_of_distribution", {"rate": 0.1}, "out_of_distribution needs donor"),
        ("human", {"labels": [0], "rate": 0.1}, "rate of human labels is measured; leave rate out"),
        (
            "asymmetric",
            {"rate": 0.1, "class_map": 3},
            "class_map must be values or a file; got int",
        ),
        ("out_of_distribution", {"rate": 0.1, "donor": "mnist"}, r"load it first: .*got str"),
    ],
)
def test_wrong_calls_are_usage_errors(model, options, words):
    with pytest.raises(UsageError, match=words):
        inject_noise(vectors(), model, **options)


def test_an_unknown_model_is_told_the_nearest():
    with pytest.raises(UnknownNameError, match="noise model 'unifrom'; did you mean 'uniform'"):
        inject_noise(vectors(), "unifrom", rate=0.1)


# --- label models ---


@given(
    st.lists(st.integers(0, 20), min_size=3, max_size=3),
    st.floats(0, 1),
    st.sampled_from(["uniform", "pair"]),
)
def test_label_noise_is_exact_in_every_class(counts, rate, model):
    labels = np.repeat(np.arange(3), counts)
    clean = LabeledDataset(np.zeros((len(labels), 1), np.float32), labels, NAMES)
    corruption = inject_noise(clean, model, rate=rate)
    assert corruption.rate == rate
    for label, count in enumerate(counts):
        assert corruption.is_corrupted[labels == label].sum() == round(rate * count)


def test_uniform_is_the_free_function():
    corruption = inject_noise(vectors(), "uniform", rate=0.3, seed=7)
    wanted = flip_uniform(vectors().labels, 3, 0.3, seed=7)
    assert np.array_equal(corruption.dataset.labels, wanted)


def test_an_original_drawn_again_is_not_corrupted():
    corruption = inject_noise(vectors(3000), "uniform_any", rate=0.5)
    assert corruption.rate == 0.5
    assert 950 < corruption.is_corrupted.sum() < 1050  # 1500 drawn, 2 in 3 differ, sd 18


def test_cifar10s_usual_map_goes_by_class_names():
    order = np.random.default_rng(0).permutation(10)
    names = tuple(CIFAR10[i] for i in order)
    clean = LabeledDataset(np.zeros((100, 1), np.float32), np.arange(100) % 10, names)
    corruption = inject_noise(clean, "asymmetric", rate=0.4)
    bad = corruption.is_corrupted
    moves = {
        (str(old), str(new))
        for old, new in zip(
            clean.label_names(corruption.clean_labels[bad]),
            clean.label_names(corruption.dataset.labels[bad]),
            strict=True,
        )
    }
    assert moves == {
        ("truck", "automobile"),
        ("bird", "airplane"),
        ("deer", "horse"),
        ("cat", "dog"),
        ("dog", "cat"),
    }
    assert bad.sum() == 5 * 4


@pytest.mark.parametrize("class_map", [{"ant": "cat"}, {0: 2}, {"0": "2"}, {"ant": 2}])
def test_a_map_takes_names_and_numbers_and_files(class_map, tmp_path):
    usual = inject_noise(vectors(), "asymmetric", rate=0.5, class_map={0: 2})
    direct = inject_noise(vectors(), "asymmetric", rate=0.5, class_map=class_map)
    (tmp_path / "map.json").write_text(json.dumps(class_map))
    read = inject_noise(vectors(), "asymmetric", rate=0.5, class_map=str(tmp_path / "map.json"))
    assert np.array_equal(usual.dataset.labels, direct.dataset.labels)
    assert np.array_equal(usual.dataset.labels, read.dataset.labels)
    assert usual.is_corrupted.sum() == 10


def test_maps_that_do_not_fit_are_errors(tmp_path):
    def inject(**options):
        inject_noise(vectors(), "asymmetric", rate=0.1, **options)

    with pytest.raises(DataError, match=r"toy has no class 'truck'.*ant, bee, cat; give class_map"):
        inject()
    with pytest.raises(DataError, match="no class 'wasp'"):
        inject(class_map={"ant": "wasp"})
    with pytest.raises(UsageError, match=r"class_map must stay in \[0, 3\)"):
        inject(class_map={"ant": 3})
    with pytest.raises(DataError, match="cannot be read as JSON"):
        inject(class_map=tmp_path / "none.json")
    (tmp_path / "list.json").write_text("[1, 2]")
    with pytest.raises(DataError, match="must hold an object"):
        inject(class_map=tmp_path / "list.json")


MATRIX = np.array([[0.5, 0.5, 0], [0, 1, 0], [0, 0.25, 0.75]])


def test_a_confusion_matrix_is_followed_and_its_rate_measured():
    corruption = inject_noise(vectors(), "confusion", matrix=MATRIX)
    counts = np.zeros((3, 3), int)
    np.add.at(counts, (corruption.clean_labels, corruption.dataset.labels), 1)
    assert counts.tolist() == [[10, 10, 0], [0, 20, 0], [0, 5, 15]]
    assert corruption.rate == 15 / 60


def test_a_rate_scales_the_off_diagonal():
    corruption = inject_noise(vectors(), "confusion", matrix=MATRIX, rate=0.5)
    counts = np.zeros((3, 3), int)
    np.add.at(counts, (corruption.clean_labels, corruption.dataset.labels), 1)
    assert counts.tolist() == [[0, 20, 0], [0, 20, 0], [0, 10, 10]]  # all that can leave class 0
    assert corruption.rate == 0.5
    with pytest.raises(UsageError, match=r"at most 0.5 of the labels; got 0.6"):
        inject_noise(vectors(), "confusion", matrix=MATRIX, rate=0.6)
    with pytest.raises(UsageError, match=r"at most 0 of the labels; got 0.1"):
        inject_noise(vectors(), "confusion", matrix=np.eye(3), rate=0.1)


def test_a_matrix_comes_from_any_file(tmp_path):
    np.save(tmp_path / "m.npy", MATRIX)
    np.savez(tmp_path / "m.npz", one=MATRIX, two=np.eye(3))
    np.savetxt(tmp_path / "m.csv", MATRIX, delimiter=",")
    wanted = inject_noise(vectors(), "confusion", matrix=MATRIX).dataset.labels
    for name in ("m.npy", "m.npz#one", "m.csv"):
        read = inject_noise(vectors(), "confusion", matrix=f"{tmp_path}/{name}")
        assert np.array_equal(read.dataset.labels, wanted)
        assert read.options == {"matrix": f"{tmp_path}/{name}"}


def test_matrices_that_do_not_fit_are_errors(tmp_path):
    with pytest.raises(DataError, match=r"shape \(k, k\) with k = 3 classes; got \(2, 2\)"):
        inject_noise(vectors(), "confusion", matrix=np.eye(2))
    with pytest.raises(DataError, match="rows summing to 1"):
        inject_noise(vectors(), "confusion", matrix=np.ones((3, 3)))
    (tmp_path / "words.csv").write_text("a,b\n")
    with pytest.raises(DataError, match=r"matrix cannot be read from .*words.csv"):
        inject_noise(vectors(), "confusion", matrix=tmp_path / "words.csv")


def test_instance_noise_takes_probabilities_of_a_better_model(tmp_path):
    probs = np.full((60, 3), 0.0)
    probs[np.arange(60), np.arange(60) % 3] = 1
    probs[:6] = 1 / 3  # two examples of each class are torn
    np.save(tmp_path / "p.npy", probs)
    for pred_probs in (probs, tmp_path / "p.npy"):
        corruption = inject_noise(vectors(), "instance", rate=0.1, pred_probs=pred_probs)
        assert np.flatnonzero(corruption.is_corrupted).tolist() == list(range(6))


# --- human labels ---


def test_labels_in_memory_are_aligned_with_rows():
    corruption = inject_noise(vectors(4), "human", labels=["ant", "ant", "cat", "bee"])
    assert corruption.dataset.labels.tolist() == [0, 0, 2, 1]
    assert corruption.is_corrupted.tolist() == [False, True, False, True]
    assert corruption.rate == 0.5


@pytest.mark.parametrize("how", ["npy", "npz", "npz-one", "csv", "csv-names", "csv-only"])
def test_ids_index_the_labels_of_a_file(how, tmp_path):
    whole = np.array([0, 1, 2, 2, 1, 0, 0, 0])
    if how == "npy":
        np.save(tmp_path / "f.npy", whole)
    elif how.startswith("npz"):
        more = {} if how == "npz-one" else {"other": whole[::-1]}
        np.savez(tmp_path / "f.npz", human=whole.astype(np.uint8), **more)
    else:
        values = [NAMES[code] for code in whole] if how == "csv-names" else whole
        first = "human" if how == "csv-only" else "x,human"
        lines = [f"{value}" if how == "csv-only" else f"9,{value}" for value in values]
        (tmp_path / "f.csv").write_text("\n".join([first, *lines]))
    key = "#human" if how in ("npz", "csv", "csv-names") else ""
    clean = LabeledDataset(
        np.zeros((3, 1), np.float32), np.array([0, 1, 2]), NAMES, ids=np.array([6, 2, 4])
    )
    corruption = inject_noise(clean, "human", labels=f"{tmp_path}/f.{how[:3]}{key}")
    assert corruption.dataset.labels.tolist() == [0, 2, 1]
    assert corruption.is_corrupted.tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0, 1], "dataset has 3, labels has 2"),
        ([0, 1, 3], r"labels must be in \[0, 3\)"),
        ([0, 1, -1], r"labels must be in \[0, 3\)"),
        (["ant", "wasp", "cat"], "1 are not, first 'wasp' at row 1"),
        ([0.0, 1.0, np.nan], "3 are not, first"),
    ],
)
def test_human_labels_that_do_not_fit_are_errors(labels, words):
    with pytest.raises(DataError, match=words):
        inject_noise(vectors(3), "human", labels=np.array(labels))


def test_label_files_that_do_not_fit_are_errors(tmp_path):
    def inject(name, clean=None):
        inject_noise(clean or pictures((2, 2)), "human", labels=f"{tmp_path}/{name}")

    np.savez(tmp_path / "two.npz", a=np.zeros(11, int), b=np.zeros((12, 2), int))
    with pytest.raises(UsageError, match=r"holds several: a, b; write .*two.npz#KEY"):
        inject("two.npz")
    with pytest.raises(UsageError, match="holds not 'c': a, b"):
        inject("two.npz#c")
    with pytest.raises(DataError, match=r"has shape \(11,\), but sample ids reach 11"):
        inject("two.npz#a")
    with pytest.raises(DataError, match=r"has shape \(12, 2\)"):
        inject("two.npz#b")
    with pytest.raises(DataError, match=r"labels cannot be read from .*none.npy"):
        inject("none.npy")
    np.save(tmp_path / "objects.npy", np.array([None] * 12), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read"):
        inject("objects.npy")
    (tmp_path / "t.csv").write_text("a,b\n0,1\n")
    with pytest.raises(DataError, match="no column 'label' among a, b"):
        inject("t.csv")


def test_labels_in_another_order_are_noticed_by_their_clean_label(tmp_path):
    clean = pictures((2, 2))
    np.savez(tmp_path / "f.npz", human=clean.labels, clean_label=clean.labels)
    inject_noise(clean, "human", labels=f"{tmp_path}/f.npz#human")
    np.savez(tmp_path / "f.npz", human=clean.labels, clean_label=np.sort(clean.labels))
    with pytest.raises(DataError, match="is not the label of dataset in 6 rows, first 1, 2, 5"):
        inject_noise(clean, "human", labels=f"{tmp_path}/f.npz#human")


def test_cifar10n_has_its_published_rates(real_data):
    clean = load("cifar10", data_root=real_data, limit=2000)
    rates = {}
    for key in ("aggre_label", "worse_label"):
        corruption = inject_noise(clean, "human", labels=f"{real_data}/cifar10n.npz#{key}")
        rates[key] = corruption.rate
    assert rates["aggre_label"] == pytest.approx(0.090, abs=0.02)  # of 2,000: sd 0.006
    assert rates["worse_label"] == pytest.approx(0.402, abs=0.035)  # sd 0.011


# --- planted examples ---


def test_duplicates_are_exact_copies_with_another_label():
    clean = vectors(
        sources=np.array([f"{i}.png" for i in range(60)]),
        skipped=(Skipped(500, "x.png", "truncated"),),
    )
    corruption = inject_noise(clean, "duplicates", rate=0.1)
    noisy = corruption.dataset
    assert len(noisy) == 66
    assert noisy.ids[60:].tolist() == list(range(501, 507))  # after what was skipped, too
    assert corruption.is_corrupted.tolist() == [False] * 60 + [True] * 6
    originals = [int(np.flatnonzero(clean.ids == copied)[0]) for copied in corruption.copied_ids]
    assert len(set(originals)) == 6
    assert np.array_equal(noisy.inputs[60:], clean.inputs[originals])
    assert np.array_equal(corruption.clean_labels[60:], clean.labels[originals])
    assert np.bincount(clean.labels[originals]).tolist() == [2, 2, 2]
    assert noisy.sources[59:].tolist() == ["59.png"] + [""] * 6


@pytest.mark.parametrize("model", ["duplicates", "out_of_distribution"])
def test_planted_counts_follow_the_sizes_of_the_classes(model):
    labels = np.repeat([0, 2], [70, 30])
    clean = LabeledDataset(np.zeros((100, 2), np.float32), labels, NAMES)
    corruption = inject_noise(clean, model, **CALLS[model])
    planted = corruption.clean_labels if model == "duplicates" else corruption.dataset.labels
    assert np.bincount(planted[100:], minlength=3).tolist() == [14, 0, 6]


def test_strangers_come_from_the_donor_each_once():
    corruption = inject_noise(vectors(), "out_of_distribution", rate=0.5, donor=donor(30))
    planted = corruption.dataset.inputs[60:]
    assert sorted(planted[:, 0].tolist()) == sorted(donor(30)[:, 0].tolist())
    assert corruption.clean_labels[60:].tolist() == [-1] * 30
    assert np.bincount(corruption.dataset.labels[60:]).tolist() == [10, 10, 10]
    assert corruption.copied_ids is None


def test_planted_examples_join_a_split():
    split = np.array(["train", "test", "train"] * 20)
    copies = inject_noise(vectors(split=split), "duplicates", rate=0.5)
    rows = [int(np.flatnonzero(vectors().ids == copied)[0]) for copied in copies.copied_ids]
    assert np.array_equal(copies.dataset.split[60:], split[rows])
    strangers = inject_noise(vectors(split=split), "out_of_distribution", rate=0.5, donor=donor())
    assert set(strangers.dataset.split[60:].tolist()) == {"train"}  # where most examples are


@pytest.mark.parametrize(
    ("to", "shape"),
    [((8, 8), (8, 8, 3)), ((8, 8, 3), (8, 8)), ((6, 8), (12, 30, 3)), ((9, 5, 3), (4, 4))],
)
def test_pictures_of_the_donor_are_made_to_fit(to, shape):
    clean, other = pictures(to), pictures(shape, seed=1)
    corruption = inject_noise(clean, "out_of_distribution", rate=0.5, donor=other)
    assert corruption.dataset.inputs.shape == (18, *to)
    assert corruption.dataset.inputs[12:].std() > 20  # pictures, not black
    assert corruption.options["donor"]["name"] == "dataset"


def test_a_grey_donor_keeps_its_pixels_in_every_channel():
    other = pictures((8, 8), seed=1)
    planted = inject_noise(pictures((8, 8, 3)), "out_of_distribution", rate=1, donor=other)
    found = {picture[..., 0].tobytes() for picture in planted.dataset.inputs[12:]}
    assert found == {picture.tobytes() for picture in other.inputs}
    assert (np.ptp(planted.dataset.inputs[12:], axis=3) == 0).all()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (donor(5), "donor has 5 examples; 12 are to be planted"),
        (np.ones((40, 3), np.float32), r"vectors of one length; got float32 of shape \(3,\)"),
        (np.zeros((40, 4, 4), np.uint8), "must both be pictures"),
        (donor().astype(np.float64), "inputs must be uint8 images"),
    ],
)
def test_donors_that_do_not_fit_are_errors(wrong, words):
    with pytest.raises(DataError, match=words):
        inject_noise(vectors(), "out_of_distribution", rate=0.2, donor=wrong)


# --- saved ---


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (lambda: vectors(61), "examples: stored 60, now 61"),
        (lambda: vectors().with_labels(np.zeros(60, int)), "labels: stored"),
        (lambda: vectors(ids=np.arange(60)), "ids: stored"),
        (lambda: pictures((2, 2), n=60), "input_shape: stored"),
    ],
)
def test_another_dataset_is_refused(other, words, tmp_path):
    inject_noise(vectors(), "uniform", rate=0.1).save(tmp_path / "n.npz")
    with pytest.raises(DataError, match=r"made from another dataset") as caught:
        apply_corruption(tmp_path / "n.npz", other())
    assert words in str(caught.value)


def test_format_1_is_read(tmp_path):
    """What version 0.1 wrote, written out here."""
    clean = vectors(3)
    settings = {
        "model": "pair",
        "rate": 0.34,
        "seed": 5,
        "options": {},
        "fingerprint": clean.fingerprint,
    }
    arrays = {
        "ids": clean.ids,
        "labels": [1, 1, 2],
        "clean_labels": [0, 1, 2],
        "is_corrupted": [True, False, False],
    }
    np.savez(tmp_path / "n.npz", format=1, settings=json.dumps(settings), **arrays)
    corruption = apply_corruption(tmp_path / "n.npz", clean)
    assert corruption.dataset.labels.tolist() == [1, 1, 2]
    assert corruption.is_corrupted.tolist() == [True, False, False]
    assert (corruption.model, corruption.rate, corruption.seed) == ("pair", 0.34, 5)


def test_files_that_are_no_corruption_are_errors(tmp_path):
    inject_noise(vectors(), "uniform", rate=0.1).save(tmp_path / "good.npz")
    whole = (tmp_path / "good.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.npz").write_bytes(b"")
    np.savez(tmp_path / "other.npz", x=np.arange(3))
    np.save(tmp_path / "array.npy", np.arange(3))
    for name in ("cut.npz", "empty.npz", "other.npz", "array.npy", "missing.npz"):
        with pytest.raises(DataError, match="is not a saved corruption"):
            apply_corruption(tmp_path / name, vectors())
    np.savez(tmp_path / "new.npz", format=99, settings="{}")
    with pytest.raises(DataError, match="has format 99; update noiseaudit"):
        apply_corruption(tmp_path / "new.npz", vectors())


def test_a_key_of_another_length_is_refused():
    clean = vectors()
    with pytest.raises(DataError, match="clean_labels has 59"):
        Corruption(clean, clean.labels[:59], np.zeros(60, bool), "pair", 0.0, 0, {}, {})


def test_options_are_described_in_plain_values():
    call = {"rate": 0.1, "class_map": {"ant": np.int64(2), 1: "cat"}}
    told = inject_noise(vectors(), "asymmetric", **call).options
    assert told == {"class_map": {"ant": 2, "1": "cat"}}
    told = inject_noise(vectors(3), "human", labels=["ant", "bee", "bee"]).options
    assert told["labels"]["shape"] == [3]
    assert len(told["labels"]["digest"]) == 32


# --- the command line's words ---


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("uniform", ("uniform", {})),
        (" pair ", ("pair", {})),
        ("human:cifar10n.npz#aggre_label", ("human", {"labels": "cifar10n.npz#aggre_label"})),
        ("human:C:\\labels.npy", ("human", {"labels": "C:\\labels.npy"})),
        ("asymmetric", ("asymmetric", {})),
        ("asymmetric:map.json", ("asymmetric", {"class_map": "map.json"})),
        ("confusion:m.csv", ("confusion", {"matrix": "m.csv"})),
        ("instance:p.npy", ("instance", {"pred_probs": "p.npy"})),
        ("out_of_distribution:mnist", ("out_of_distribution", {"donor": "mnist"})),
    ],
)
def test_noise_words_are_parsed(text, parsed):
    assert parse_noise(text) == parsed


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("humans:x", "noise model 'humans'; did you mean 'human'"),
        ("", "unknown noise model ''"),
        ("human", "human needs labels: write human:FILE"),
        ("human:", "nothing after the colon of 'human:'; write human:FILE"),
        ("confusion", "write confusion:FILE"),
        ("uniform:0.1", "uniform takes no file; write uniform"),
        ("pair:", "pair takes no file"),
    ],
)
def test_wrong_noise_words_are_usage_errors(text, words):
    with pytest.raises(UsageError, match=words):
        parse_noise(text)
