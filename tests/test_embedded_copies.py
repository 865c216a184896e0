"""Copies that embeddings propose: re-crops and changes of colour; and what is no copy."""

import numpy as np
import pytest
from PIL import Image, ImageOps

import noiseaudit as na
import noiseaudit.copy_scan
from noiseaudit.copy_groups import join_groups
from noiseaudit.copy_scan import CopyOptions
from noiseaudit.duplicate_scan import scan_duplicates
from noiseaudit.embedded_copies import similar_pairs
from noiseaudit.errors import DataError, UsageError
from noiseaudit.registration import register


@pytest.fixture(scope="module")
def photographs():
    """Forty crops of two photographs, 96 x 96, that do not overlap."""
    from sklearn.datasets import load_sample_images

    return [
        Image.fromarray(image).crop((x, y, x + 96, y + 96))
        for image in load_sample_images().images
        for y in range(0, 400, 100)
        for x in range(0, 500, 100)
    ]


def cropped(picture, left=0.1, top=0.2, share=0.7):
    side = picture.width
    box = (left * side, top * side, (left + share) * side, (top + share) * side)
    return picture.resize((side, side), Image.Resampling.BICUBIC, box=box)


def dataset(pictures, copies):
    inputs = np.stack([np.asarray(picture) for picture in [*pictures, *copies]])
    labels = np.arange(len(inputs)) >= len(pictures)
    return na.LabeledDataset(inputs, labels.astype(int), ("a", "b"))


def embeddings_of(pictures, origins, seed=0):
    """Random directions, those of copies near those of their origins."""
    random = np.random.default_rng(seed)
    own = random.normal(size=(pictures, 16))
    copies = own[origins] + 0.3 * random.normal(size=(len(origins), 16))
    return np.concatenate([own, copies]).astype(np.float32)


def test_crops_and_changes_of_colour_are_found_and_nothing_else(photographs):
    sepia = ImageOps.colorize(photographs[12].convert("L"), "#2b1d0e", "#fff3d6", "#a8804d")
    darker = photographs[37].point([round(255 * (v / 255) ** 1.5) for v in range(256)] * 3)
    copies = [
        cropped(photographs[7]), cropped(photographs[27], 0.25, 0.25, 0.5),
        cropped(photographs[32]).convert("L").convert("RGB"), cropped(sepia), cropped(darker),
    ]  # fmt: skip
    origins = [7, 27, 32, 12, 37]
    data, embeddings = dataset(photographs, copies), embeddings_of(40, origins)
    assert len(scan_duplicates(data)) == 0
    found = scan_duplicates(data, embeddings=embeddings)
    # A part may rightly have another label than the whole.
    assert set(found.action[found.in_conflict()]) == {"review"}
    assert found.reason(7).startswith("shows a part of, or all of,")
    wanted = sorted([origin, 40 + k] for k, origin in enumerate(origins))
    assert sorted(rows.tolist() for rows in found.members) == wanted
    assert found.is_conflict.all()
    frame = found.links_frame().set_index("sample_id")
    assert set(frame.found_by) == {"embedding"}
    assert (frame.error <= 0.15).all()
    assert set(found.to_frame()["kind"]) == {"near"}
    window = [float(x) for x in frame.loc[7, "window"].split()]
    assert window == pytest.approx([0.1, 0.2, 0.8, 0.9], abs=0.01)
    assert (frame.distance > 8).all()  # of the hashes, beyond their radius


def test_the_window_is_of_the_lower_row_whichever_is_the_crop(photographs):
    pictures = [cropped(photographs[7]), *photographs[:7], *photographs[8:], photographs[7]]
    data = dataset(pictures[:40], pictures[40:])
    links = scan_duplicates(data, embeddings=embeddings_of(40, [0])).links
    assert links.rows.tolist() == [[0, 40]]
    wanted = np.array([-0.1, -0.2, 0.9, 0.8]) / 0.7
    assert links.windows[0] == pytest.approx(wanted, abs=0.02)


def test_neighbours_that_show_different_things_are_no_copies(photographs):
    """One half is the same, the other of another picture; and pictures next to each other."""
    halves = []
    for k in (7, 28):
        mixed = photographs[k].copy()
        mixed.paste(photographs[k + 5].crop((0, 0, 48, 96)), (0, 0))
        halves.append(mixed)
    data = dataset(photographs, halves)
    assert len(scan_duplicates(data, embeddings=embeddings_of(40, [7, 28]))) == 0
    everything_alike = np.random.default_rng(0).normal(1, 0.01, (42, 4))
    assert len(scan_duplicates(data, embeddings=everything_alike)) == 0


def test_cut_out_shapes_alike_are_no_copies():
    random = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:28j, -1:1:28j]
    shapes = []
    for _ in range(60):
        width, height, tone = random.uniform(0.7, 0.85, 3)
        inside = (x / width) ** 4 + (y / height) ** 4 < 1
        shapes.append(np.clip(255 * tone * inside + random.normal(0, 4, (28, 28)), 0, 255))
    data = na.LabeledDataset(np.array(shapes).astype(np.uint8), np.arange(60) % 2, ("a", "b"))
    assert len(scan_duplicates(data, embeddings=embeddings_of(60, []))) == 0


def test_flat_pictures_agree_on_nothing():
    flat = np.full((2, 32, 32), 90, np.float32)
    noisy = flat + np.random.default_rng(0).normal(0, 0.3, (2, 32, 32)).astype(np.float32)
    pictures = np.concatenate([flat, noisy, noisy[:1]])
    found = register(pictures, np.array([0, 0, 2]), np.array([1, 2, 4]))
    assert (found.agreement < 0.5).all()
    assert (found.local == -1).all()


def test_mirrored_crops_when_asked_for(photographs):
    copy = cropped(photographs[11]).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    data, embeddings = dataset(photographs[6:14], [copy]), embeddings_of(8, [5])
    assert len(scan_duplicates(data, embeddings=embeddings)) == 0
    found = scan_duplicates(data, CopyOptions(transforms=True), embeddings=embeddings)
    assert found.links_frame()["transform"].tolist() == ["flip_left_right"]


def test_groups_of_the_hash_are_joined_and_never_cut():
    groups = np.array([0, 0, 1, 1, -1, -1, -1])
    joined = join_groups(groups, np.array([[0, 4], [1, 2]]))
    assert joined.tolist() == [0, 0, 0, 0, 0, -1, -1]
    assert join_groups(groups, np.empty((0, 2), int)).tolist() == groups.tolist()
    chain = join_groups(np.full(6, -1), np.array([[k, k + 1] for k in range(5)]))
    assert (chain >= 0).all()
    assert chain[0] != chain[5]


def test_no_more_pairs_than_are_affordable():
    random = np.random.default_rng(0)
    embeddings = random.normal(size=(3_000, 8)).astype(np.float32)
    embeddings[2_990:] = embeddings[:10] + 1e-3
    found = similar_pairs(embeddings, np.arange(3_000), np.full(3_000, -1))
    assert len(found.rows) == 3_000
    assert (found.rows[:, 0] < found.rows[:, 1]).all()
    planted = {(k, 2_990 + k) for k in range(10)}
    assert planted <= {tuple(pair) for pair in found.rows.tolist()}
    known = np.full(3_000, -1)
    known[[0, 2_990]] = 0
    again = similar_pairs(embeddings, np.arange(3_000), known)
    assert (0, 2_990) not in {tuple(pair) for pair in again.rows.tolist()}


def test_what_was_found_without_embeddings_is_not_taken_for_what_they_find(
    tmp_path, photographs, monkeypatch
):
    data, embeddings = dataset(photographs, [cropped(photographs[7])]), embeddings_of(40, [7])
    scan = tmp_path / "scan"
    assert len(scan_duplicates(data, folder=scan)) == 0
    first = scan_duplicates(data, embeddings=embeddings, folder=scan)
    assert len(first) == 1

    def never(*_, **__):
        raise AssertionError("found again")

    with monkeypatch.context() as patch:
        patch.setattr(noiseaudit.copy_scan, "hash_pictures", never)
        again = scan_duplicates(data, embeddings=embeddings.astype(float), folder=scan)
        assert again.links_frame().equals(first.links_frame())
        with pytest.raises(AssertionError, match="found again"):
            scan_duplicates(data, embeddings=embeddings + 1, folder=scan)
    assert len(scan_duplicates(data, folder=scan)) == 0


def test_files_are_compared_in_full(tmp_path, photographs):
    for label, pictures in {
        "a": photographs[:12],
        "b": [cropped(photographs[2]), photographs[39]],
    }.items():
        (tmp_path / "d" / label).mkdir(parents=True)
        for k, picture in enumerate(pictures):
            picture.resize((300, 200)).save(tmp_path / "d" / label / f"{k:02}.png")
    data = na.load(tmp_path / "d", image_size=16)
    found = na.find_duplicates(data, embeddings=embeddings_of(12, [2, 0]), out=tmp_path / "out")
    assert found.to_frame()["source"].tolist() == ["a/02.png", "b/00.png"]
    assert "embedding" in (tmp_path / "out" / "links.csv").read_text()


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_pictures(photographs, n):
    data = dataset(photographs[:n], []) if n else dataset(photographs[:1], []).subset([])
    assert len(scan_duplicates(data, embeddings=np.ones((n, 3)))) == 0


def test_what_it_refuses(photographs):
    data = dataset(photographs[:3], [])
    with pytest.raises(DataError, match=r"shape \(3, d\); got \(2, 4\)"):
        scan_duplicates(data, embeddings=np.zeros((2, 4)))
    with pytest.raises(DataError, match="embeddings"):
        scan_duplicates(data, embeddings=np.full((3, 4), np.nan))
    with pytest.raises(DataError, match="must be numbers"):
        scan_duplicates(data, embeddings=np.full((3, 4), "x"))
    vectors = na.LabeledDataset(np.zeros((4, 2), np.float32), np.array([0, 1, 1, 0]), ("a", "b"))
    with pytest.raises(UsageError, match="vectors"):
        na.find_duplicates(vectors, embeddings=np.zeros((4, 4)))
