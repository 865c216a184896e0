"""Copies of one picture: exact, near, in conflict, across splits; and what is no copy."""

import csv
import io
import json
from dataclasses import replace

import imagehash
import numpy as np
import pytest
from PIL import Image, ImageEnhance

import noiseaudit as na
import noiseaudit.copy_scan
import noiseaudit.picture_hashes as picture_hashes
from noiseaudit.cli import main
from noiseaudit.copies import Thumbnails, confirm
from noiseaudit.copy_scan import CopyOptions
from noiseaudit.duplicate_groups import NONE, UNKNOWN, DuplicateGroups
from noiseaudit.duplicate_scan import scan_duplicates
from noiseaudit.errors import DataError, ManifestMismatchError, UnknownNameError, UsageError
from noiseaudit.findings import Findings
from noiseaudit.hamming import hamming_pairs
from noiseaudit.picture_hashes import HASHES, hash_pictures


@pytest.fixture(scope="module")
def photographs():
    """Sixty different crops of two photographs, 96 x 96."""
    from sklearn.datasets import load_sample_images

    crops = []
    for image in load_sample_images().images:
        picture = Image.fromarray(image)
        for y in range(0, 400, 80):
            for x in range(0, 600, 100):
                crops.append(picture.crop((x, y, x + 96, y + 96)))
    return crops


def dataset(pictures, labels, **more):
    inputs = np.stack([np.asarray(picture) for picture in pictures])
    names = tuple(f"class {k}" for k in range(max(labels) + 1))
    return na.LabeledDataset(inputs, np.array(labels), names, **more)


def reencoded(picture, quality=60):
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert(picture.mode)


def changed(picture):
    """Cropped by 3%, brighter, sized down and up again, and re-encoded."""
    side = picture.width
    cut = round(0.03 * side)
    cropped = picture.crop((cut, cut, side - cut, side - cut)).resize((72, 72)).resize((side, side))
    return reencoded(ImageEnhance.Brightness(cropped).enhance(1.15))


def folder_of(root, pictures):
    for name, picture in pictures.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    return root


def test_near_copies_are_found_and_nothing_else(photographs):
    chosen = [23, 27, 40]
    pictures = [*photographs, *(changed(photographs[i]) for i in chosen)]
    found = scan_duplicates(dataset(pictures, [0] * 60 + [1] * 3))
    assert [rows.tolist() for rows in found.members] == [[23, 60], [27, 61], [40, 62]]
    assert found.is_conflict.all()
    assert not found.is_exact.any()
    assert (found.links.errors < 0.1).all()
    assert found.links.rows.tolist() == [[23, 60], [27, 61], [40, 62]]
    assert (found.distance[found.group >= 0] <= 8).all()
    assert (found.distance[found.group < 0] == -1).all()
    assert found.summary()["conflicts"] == 3


def test_exact_means_pixels_whatever_the_format(tmp_path, photographs):
    grey = photographs[5].convert("L")
    root = folder_of(
        tmp_path / "data",
        {
            "a/one.png": photographs[0], "b/one.bmp": photographs[0], "b/one.tiff": photographs[0],
            "a/grey.png": grey, "b/grey.png": grey.convert("RGB"),
            "a/lossy.jpg": photographs[9], "b/other.png": photographs[30],
        },
    )  # fmt: skip
    photographs[9].save(root / "b" / "lossless.png")
    found = na.find_duplicates(root)
    frame = found.to_frame()
    exact = frame[frame.kind == "exact"]
    groups = exact.groupby("group").source.apply(set).tolist()
    assert {"a/one.png", "b/one.bmp", "b/one.tiff"} in groups
    assert {"a/grey.png", "b/grey.png"} in groups
    assert len(groups) == 2
    near = frame[frame.kind == "near"]
    assert set(near.source) == {"a/lossy.jpg", "b/lossless.png"}
    assert frame.conflict.all()
    links = found.links_frame()
    assert (links[links.error == 0].distance == 0).all()
    assert len(links) == 4  # two of the three, one of the greys, one near


def test_hashes_are_imagehashs(photographs):
    functions = {
        "phash": imagehash.phash, "dhash": imagehash.dhash, "ahash": imagehash.average_hash,
        "whash": lambda picture, size: imagehash.whash(picture, size, image_scale=64),
    }  # fmt: skip
    data = dataset(photographs, [0] * 60)
    for kind in HASHES:
        for size in (8, 16):
            codes = hash_pictures(data, kind=kind, hash_size=size).codes
            bits = np.unpackbits(codes[:, 0].view(np.uint8), axis=1)[:, : size * size]
            wanted = [functions[kind](picture, size).hash.ravel() for picture in photographs]
            assert np.array_equal(bits.astype(bool), wanted)


def test_every_hash_finds_a_reencoded_copy(photographs):
    for kind in HASHES:
        pictures = [*photographs, reencoded(photographs[7])]
        found = scan_duplicates(dataset(pictures, [0] * 61), CopyOptions(kind))
        assert [rows.tolist() for rows in found.members] == [[7, 60]]


@pytest.mark.parametrize("turn", list(Image.Transpose))
def test_mirrored_and_turned_copies_when_asked_for(photographs, turn):
    data = dataset([*photographs, photographs[11].transpose(turn)], [0] * 61)
    assert len(scan_duplicates(data)) == 0
    found = scan_duplicates(data, CopyOptions(transforms=True))
    assert [rows.tolist() for rows in found.members] == [[11, 60]]
    first = np.asarray(photographs[11])
    name = found.links_frame()["transform"].tolist()[0]
    second = Image.fromarray(data.inputs[60]).transpose(Image.Transpose[name.upper()])
    assert np.array_equal(np.asarray(second), first)  # what makes the second like the first


def test_flat_pictures_are_copies_only_when_equal():
    shades = [Image.new("RGB", (32, 32), (40 * k, 40, 40)) for k in range(5)]
    speck = np.asarray(shades[0]).copy()
    speck[3, 3] = 44
    found = scan_duplicates(dataset([*shades, shades[2], Image.fromarray(speck)], [0] * 7))
    assert [rows.tolist() for rows in found.members] == [[2, 5]]
    assert found.is_exact.all()


def test_pictures_of_one_kind_are_no_copies():
    # Cut out and centred shapes correlate strongly; the photographs of a folder do not.
    random = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:28j, -1:1:28j]
    shapes = []
    for _ in range(400):
        width, height, tone = random.uniform(0.75, 0.85, 3)
        noise = random.normal(0, 8, (28, 28))
        shapes.append(
            np.clip(255 * tone * ((x / width) ** 4 + (y / height) ** 4 < 1) + noise, 0, 255)
        )
    inputs = np.array(shapes).astype(np.uint8)
    correlated = np.corrcoef(inputs.reshape(400, -1).astype(float))
    assert np.median(correlated) > 0.9  # each would pass a fixed limit
    data = na.LabeledDataset(inputs, np.arange(400) % 2, ("a", "b"))
    codes = hash_pictures(data).codes[:, 0]
    assert sum(len(rows) for rows, _, _ in hamming_pairs(codes, radius=12)) > 20
    assert len(scan_duplicates(data, CopyOptions(radius=12))) == 0


def test_a_chain_does_not_join_different_pictures(photographs):
    first, last = (np.asarray(photographs[i]).astype(float) for i in (23, 40))
    steps = [Image.fromarray(np.uint8((1 - t) * first + t * last)) for t in np.linspace(0, 1, 31)]
    pictures = [p for i, p in enumerate(photographs) if i not in (23, 40)]
    found = scan_duplicates(
        dataset([*steps, *pictures], [0] * 31 + [1] * 58), CopyOptions(radius=30)
    )
    groups = found.group[:31]
    assert (groups >= 0).any()
    assert groups[0] != groups[30] or groups[0] == -1
    assert (found.group[31:] == -1).all()
    blank = [row[0] for row in found.link_rows()[1]].count("")
    assert blank > 0  # the links that were cut are still listed


@pytest.mark.parametrize("copies", [6, 20, 55])
def test_many_copies_of_one_picture_in_a_small_set_are_one_group(photographs, copies):
    qualities = np.linspace(95, 40, copies).astype(int)
    same = [reencoded(photographs[24], int(quality)) for quality in qualities]
    found = scan_duplicates(dataset([*photographs, *same], [0] * (60 + copies)))
    assert [rows.tolist() for rows in found.members] == [[24, *range(60, 60 + copies)]]
    assert found.action[24] == "keep"
    assert (found.action[60:] == "remove").all()
    assert found.summary()["spare_copies"] == copies


def test_order_of_rows_does_not_matter(photographs):
    turned = [
        photographs[i].transpose(t) for i, t in zip(range(20, 27), Image.Transpose, strict=True)
    ]
    data = dataset([*photographs, *turned, *map(changed, photographs[30:40])], [0] * 77)
    shuffled = np.random.default_rng(0).permutation(77)
    first, second = (
        scan_duplicates(part, CopyOptions(transforms=True))
        for part in (data, data.subset(shuffled))
    )
    ids = [
        {tuple(sorted(found.dataset.ids[rows])) for rows in found.members}
        for found in (first, second)
    ]
    assert ids[0] == ids[1]
    assert len(ids[0]) >= 15


def test_a_chain_that_is_cut_loses_no_conflict(photographs):
    first, last = (np.asarray(photographs[i]).astype(float) for i in (23, 40))
    steps = [Image.fromarray(np.uint8((1 - t) * first + t * last)) for t in np.linspace(0, 1, 31)]
    for odd in range(1, 31):
        labels = [0] * 31 + [1] * 58
        labels[odd] = 1
        pictures = [p for i, p in enumerate(photographs) if i not in (23, 40)]
        found = scan_duplicates(dataset([*steps, *pictures], labels), CopyOptions(radius=30))
        linked = found.links.rows[(found.links.rows == odd).any(axis=1)]
        if len(linked):
            assert found.in_conflict()[odd]
        if odd > 4:
            break


def test_pictures_that_differ_only_in_transparency_or_depth_are_not_identical(tmp_path):
    shapes = []
    for box in ((8, 8, 40, 40), (20, 20, 60, 60)):
        alpha = Image.new("L", (64, 64), 0)
        alpha.paste(255, box)
        picture = Image.new("RGBA", (64, 64), "white")
        picture.putalpha(alpha)
        shapes.append(picture)
    deep = np.random.default_rng(0).integers(0, 2**16, (32, 32)).astype(np.uint16)
    other = deep.copy()
    other[:4] ^= 3
    root = folder_of(
        tmp_path / "d",
        {
            "a/ellipse.png": shapes[0], "b/square.png": shapes[1], "b/copy.png": shapes[0],
            "a/deep.png": Image.fromarray(deep), "b/deep.png": Image.fromarray(other),
        },
    )  # fmt: skip
    frame = na.find_duplicates(root).to_frame()
    exact = frame[frame.kind == "exact"]
    assert set(exact.source) == {"a/ellipse.png", "b/copy.png"}


def test_a_file_that_is_listed_twice_is_never_to_be_removed(tmp_path, photographs):
    folder_of(tmp_path, {f"{i}.png": photographs[i] for i in range(20, 24)})
    table = tmp_path / "data.csv"
    table.write_text("path,label\n20.png,a\n21.png,b\n20.png,a\n22.png,b\n")
    found = na.find_duplicates(table)
    assert found.to_frame()["action"].tolist() == ["keep", "keep"]


def test_pictures_that_are_gone_are_compared_as_they_were_loaded(tmp_path, photographs):
    root = folder_of(tmp_path / "d", {f"a/{i}.png": photographs[i] for i in range(20, 25)})
    folder_of(root, {f"b/{i}.png": photographs[i] for i in range(24, 28)})
    data = na.load(root)
    root.rename(tmp_path / "away")
    with pytest.warns(na.NoiseAuditWarning, match="9 pictures cannot be read again"):
        gone = na.find_duplicates(data, out=tmp_path / "out")
    assert gone.summary()["conflicts"] == 1
    (tmp_path / "away").rename(root)
    back = na.find_duplicates(data, out=tmp_path / "out")
    assert back.summary()["conflicts"] == 1
    assert back.is_exact.all()  # what stood in for the files was not kept


def test_a_picture_that_changes_while_it_is_read_poisons_no_cache(
    tmp_path, photographs, monkeypatch
):
    root = folder_of(tmp_path / "d", {f"a/{i}.png": photographs[i] for i in range(20, 25)})
    folder_of(root, {f"b/{i}.png": photographs[i] for i in range(30, 34)})
    data, victim = na.load(root), root / "a" / "20.png"
    whole, real = victim.read_bytes(), picture_hashes.picture_headers

    def overwritten(*words, **options):
        found = real(*words, **options)
        victim.write_bytes((root / "b" / "30.png").read_bytes())
        return found

    with monkeypatch.context() as patch:
        patch.setattr(picture_hashes, "picture_headers", overwritten)
        with pytest.warns(na.NoiseAuditWarning, match="changed while it was being read"):
            na.find_duplicates(data)
    victim.write_bytes(whole)
    assert len(na.find_duplicates(na.load(root))) == 0


def test_pictures_can_be_added_to_a_finished_scan(tmp_path, photographs):
    root = folder_of(tmp_path / "d", {f"a/{i}.png": photographs[i] for i in range(20, 25)})
    folder_of(root, {f"b/{i}.png": photographs[i] for i in range(25, 28)})
    assert len(na.find_duplicates(root, out=tmp_path / "out")) == 0
    folder_of(root, {"b/new.png": photographs[20]})
    assert na.find_duplicates(root, out=tmp_path / "out").summary()["conflicts"] == 1


def test_hashes_of_one_kind_are_not_taken_for_another(tmp_path, photographs):
    root = folder_of(tmp_path / "d", {f"a/{i}.png": photographs[i] for i in range(20, 25)})
    folder_of(root, {f"b/{i}.png": photographs[i] for i in range(25, 28)})
    data = na.load(root)
    for options in ({}, {"kind": "dhash"}, {"hash_size": 16}, {"transforms": True}):
        first = hash_pictures(data, **options)
        array = na.LabeledDataset(
            np.stack([np.asarray(photographs[i]) for i in range(20, 28)]),
            data.labels,
            data.class_names,
        )
        assert np.array_equal(first.codes, hash_pictures(array, **options).codes)


def test_no_pictures_at_all():
    empty = na.LabeledDataset(np.empty((0, 8, 8), np.uint8), np.empty(0, int), ("a", "b"))
    assert len(scan_duplicates(empty)) == 0


def group(labels, probs=None, split=None):
    """The actions and the believed label of one exact group."""
    inputs = np.repeat(
        np.random.default_rng(0).integers(0, 255, (1, 8, 8), np.uint8), len(labels), 0
    )
    names = ("cat", "dog", "cow")
    data = na.LabeledDataset(
        inputs, np.array(labels), names, split=None if split is None else np.array(split)
    )
    found = scan_duplicates(
        data, pred_probs=None if probs is None else np.broadcast_to(probs, (len(labels), 3))
    )
    return found.action.tolist(), int(found.believed[0])


def test_actions_by_hand():
    assert group([1, 1, 1]) == (["keep", "remove", "remove"], 1)
    assert group([0, 1]) == (["review", "review"], -2)
    assert group([0, 1, 1], [0.2, 0.7, 0.1]) == (["remove", "keep", "remove"], 1)
    assert group([0, 1], [0.4, 0.45, 0.15]) == (["remove", "remove"], -1)  # too near
    assert group([0, 1], [0.1, 0.3, 0.6]) == (["remove", "remove"], -1)  # it is neither
    assert group([0, 1], [[0.9, 0.1, 0], [0.3, 0.7, 0]])[1] == -1  # both rows are heard
    assert group([0, 1], [[0.9, 0.1, 0], [0.7, 0.3, 0]]) == (["keep", "remove"], 0)
    # Nothing is ever removed from what is held out, which also counts as the copy to keep.
    assert group([1, 1], split=["train", "test"]) == (["remove", "keep"], 1)
    assert group([0, 1], [0.9, 0.1, 0], ["train", "test"]) == (["keep", "review"], 0)
    assert group([0, 1], split=["val", "test"]) == (["review", "review"], -2)
    assert group([0, 1], [0.1, 0.9, 0], ["val", "train"]) == (["review", "keep"], 1)
    assert group([0, 1], [0.6, 0.4, 0]) == (["remove", "remove"], -1)  # likely, but no clear lead


def test_a_pair_is_judged_by_the_stricter_of_its_two_limits():
    class Two:
        """Thumbnails of two pictures 0.1 apart, of which one has nothing like it far around."""

        def __init__(self, stricter):
            self.stricter = stricter

        def may_be_copies(self, rows, others, transform):
            return np.ones(len(rows), bool)

        def squared_distances(self, rows, others, transform):
            return np.full(len(rows), 0.1)

        def limits(self, rows):
            return np.array([0.2, self.stricter])

    candidates = [(0, (np.array([0]), np.array([1]), np.array([4])))]
    for stricter, found in ((0.05, 0), (0.15, 1)):
        assert len(confirm(candidates, Two(stricter)).rows) == found


def test_conflicts_come_first_then_leaks(photographs):
    a, b, c, d = photographs[:4]
    found = scan_duplicates(
        dataset(
            [a, b, c, d, a, b, c], [0, 0, 0, 0, 0, 0, 1],
            split=np.array(["train"] * 5 + ["test"] * 2),
        )
    )  # fmt: skip
    assert [rows.tolist() for rows in found.members] == [[2, 6], [1, 5], [0, 4]]
    assert found.is_conflict.tolist() == [True, False, False]
    assert found.is_leak.tolist() == [True, True, False]
    assert found.in_conflict().tolist() == [False, False, True, False, False, False, True]
    assert found.reason(2) == "identical to sample 6, labelled class 1"
    assert found.reason(0) == "identical to sample 4, same label"


def test_vectors_are_copies_only_when_equal():
    vectors = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    vectors[7] = vectors[2]
    vectors[9] = vectors[3] + 1e-6
    found = scan_duplicates(na.LabeledDataset(vectors, np.arange(20) % 2, ("a", "b")))
    assert [rows.tolist() for rows in found.members] == [[2, 7]]


def test_an_empty_finding_has_its_columns(photographs):
    found = scan_duplicates(dataset(photographs[:3], [0, 1, 1]))
    assert len(found) == 0
    assert list(found.to_frame()) == [
        "group", "sample_id", "source", "label", "kind", "distance", "conflict", "split", "action",
        "leakage",
    ]  # fmt: skip
    assert found.links_frame().empty
    assert isinstance(found, DuplicateGroups)


def test_a_scan_is_kept_and_read_again(tmp_path, photographs, monkeypatch):
    data = dataset([*photographs[20:30], photographs[20]], [0] * 9 + [1] * 2)
    first = na.find_duplicates(data, out=tmp_path / "out")
    assert len(first) == 1

    def refuse(*_, **__):
        raise AssertionError("scanned again")

    with monkeypatch.context() as patch:
        patch.setattr(noiseaudit.copy_scan, "hash_pictures", refuse)
        again = na.find_duplicates(data, out=tmp_path / "out")
        with pytest.raises(AssertionError):
            na.find_duplicates(data, out=tmp_path / "out", resume=False)
    assert again.to_frame().equals(first.to_frame())
    assert again.links_frame().equals(first.links_frame())
    (tmp_path / "out" / "scan" / "copies.npz").write_bytes(b"damaged")
    assert na.find_duplicates(data, out=tmp_path / "out").to_frame().equals(first.to_frame())
    with pytest.raises(ManifestMismatchError, match="radius: stored 8, now 6"):
        na.find_duplicates(data, out=tmp_path / "out", radius=6)


def test_only_new_pictures_are_hashed(tmp_path, photographs, monkeypatch):
    root = folder_of(tmp_path / "d", {f"a/{i}.png": photographs[i] for i in range(6)})
    folder_of(root, {f"b/{i}.png": photographs[i] for i in range(5, 9)})
    first = na.find_duplicates(root)
    opened = []
    real = picture_hashes.open_picture
    monkeypatch.setattr(picture_hashes, "open_picture", lambda data: opened.append(1) or real(data))
    again = na.find_duplicates(root)
    assert opened == []
    assert again.to_frame().equals(first.to_frame())
    folder_of(root, {"b/new.png": photographs[2]})
    assert na.find_duplicates(root).summary()["conflicts"] == 2
    assert opened == []  # by content: it is a copy of a known file
    folder_of(root, {"b/newer.png": photographs[20]})
    na.find_duplicates(root)
    assert opened == [1]


def test_odd_pictures_are_scanned_or_reported(tmp_path, photographs):
    root = folder_of(
        tmp_path / "d",
        {
            "a/plain.png": photographs[0], "a/$(rm -rf ~);'\".png": photographs[1],
            "b/<script>alert(1)<.png": photographs[1], "b/cmyk.jpg": photographs[2].convert("CMYK"),
            "a/strip.png": Image.new("L", (200_000, 3), 90),
            "a/tiny.png": Image.new("RGB", (1, 1), 5),
        },
    )  # fmt: skip
    wide = (np.asarray(photographs[3].convert("L")).astype(np.uint16)) * 257
    Image.fromarray(wide).save(root / "a" / "wide.png")
    photographs[3].convert("L").save(root / "b" / "narrow.png")
    turned = photographs[4].transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(root / "a" / "turned.png", exif=exif)
    photographs[4].save(root / "b" / "upright.png")
    photographs[5].save(root / "a" / "moving.gif", save_all=True, append_images=photographs[6:8])
    (root / "b" / "empty.png").write_bytes(b"")
    whole = (root / "a" / "plain.png").read_bytes()
    (root / "b" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (root / "b" / "text.jpg").write_text("no picture")
    out = tmp_path / "out"
    found = na.find_duplicates(root, out=out)
    assert {item.source for item in found.dataset.skipped} == {
        "b/empty.png",
        "b/cut.png",
        "b/text.jpg",
    }
    with (out / "skipped.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 3
    groups = {frozenset(g.source) for _, g in found.to_frame().groupby("group")}
    assert frozenset({"a/$(rm -rf ~);'\".png", "b/<script>alert(1)<.png"}) in groups
    assert frozenset({"a/wide.png", "b/narrow.png"}) in groups
    assert frozenset({"a/turned.png", "b/upright.png"}) in groups
    assert "<script>alert" not in (out / "report.html").read_text()


def test_an_audit_puts_confirmed_conflicts_first(tmp_path, photographs):
    random = np.random.default_rng(0)
    plain = [
        Image.fromarray(x).resize((16, 16))
        for x in random.integers(0, 255, (40, 8, 8, 3), np.uint8)
    ]
    data = dataset([*plain, plain[6]], [k % 2 for k in range(40)] + [1])
    report = na.audit(data, out=tmp_path / "out", epochs=2, model="mlp")
    assert report.duplicates.members[0].tolist() == [6, 40]
    assert report.duplicates.believed[0] != UNKNOWN
    assert report.manifest["results"]["conflicts"] == 1
    frame = report.to_frame().set_index("sample_id")
    assert frame.loc[6, "reason"].startswith("identical to sample 40, labelled class 1")
    page = report.to_html()
    assert page.index("Conflicting labels") < page.index("Most suspicious labels")
    assert (tmp_path / "out" / "groups.csv").exists()
    again = na.audit(data, out=tmp_path / "out", epochs=2, model="mlp", duplicates=False)
    assert again.duplicates is None
    assert not (tmp_path / "out" / "groups.csv").exists()
    assert 'id="copies"' not in again.to_html()


def test_copies_of_which_no_label_is_believed_are_for_review_in_the_plan(tmp_path, photographs):
    root = folder_of(tmp_path / "d", {f"a/{i}.png": photographs[i] for i in range(5)})
    folder_of(root, {f"b/{i}.png": photographs[i] for i in range(4, 8)})
    report = na.audit(root, model="mlp", epochs=1)
    groups = replace(report.duplicates, believed=np.array([NONE]), action=np.full(9, "remove"))
    inside = groups.in_conflict()
    plan = replace(report, duplicates=groups).plan
    assert inside.sum() == 2
    assert (plan.actions[inside] == "review").all()


def test_a_believed_label_reaches_the_ranking():
    given = np.array([0, 1, 0, 1])
    nothing = np.zeros(4)
    found = Findings(given.copy(), np.zeros(4, bool), nothing, nothing, np.zeros(4, int), 1)
    told = found.with_conflicts(np.array([1, 2]), np.array([0, 0]), given, ["one", "two"])
    assert told.suggested.tolist() == [0, 0, 0, 1]
    assert told.is_label_issue.tolist() == [False, True, False, False]
    assert told.reason(1, ("a", "b"), 1) == "one"
    assert found.suggested.tolist() == given.tolist()


def test_command_line(tmp_path, photographs, capsys):
    root = folder_of(tmp_path / "d", {f"train/a/{i}.png": photographs[i] for i in range(5)})
    folder_of(root, {f"train/b/{i}.png": photographs[i] for i in range(4, 8)})
    folder_of(root, {f"test/b/{i}.png": photographs[i] for i in range(7, 9)})
    out = tmp_path / "out"
    command = ["duplicates", str(root), "--out", str(out)]
    assert main([*command, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["conflicts"], summary["leaks"], summary["spare_copies"]) == (1, 1, 1)
    with (out / "groups.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["conflict"] for row in rows} == {"True", "False"}
    assert json.loads((out / "manifest.json").read_text())["status"] == "done"
    page = (out / "report.html").read_text()
    (out / "report.html").unlink()
    assert na.rebuild_report(out).read_text() == page
    # With predictions, here all for class b, it says which label is right.
    conflict = [row["sample_id"] for row in rows if row["conflict"] == "True"]
    assert {row["action"] for row in rows if row["conflict"] == "True"} == {"review"}
    np.savez(tmp_path / "cscores.npz", scores=np.ones(11), pred_probs=np.tile([0.1, 0.9], (11, 1)))
    assert main([*command, "--quiet", "--pred-probs", str(tmp_path / "cscores.npz")]) == 0
    shown = capsys.readouterr()
    assert shown.out == shown.err == ""
    with (out / "groups.csv").open() as file:
        action = {row["sample_id"]: (row["label"], row["action"]) for row in csv.DictReader(file)}
    assert {action[row] for row in conflict} == {("a", "remove"), ("b", "keep")}


def test_what_it_refuses(photographs, tmp_path):
    data = dataset(photographs[:3], [0, 1, 1])
    with pytest.raises(UnknownNameError, match="did you mean 'phash'"):
        CopyOptions("phsh")
    with pytest.raises(UsageError, match="power of two"):
        CopyOptions("whash", 12)
    with pytest.raises(UsageError, match=r"2\.\.32"):
        CopyOptions(hash_size=64)
    with pytest.raises(UsageError, match=r"0\.\.63"):
        CopyOptions(radius=64)
    with pytest.raises(UsageError, match="whole number"):
        CopyOptions(radius=6.5)
    with pytest.raises(DataError, match=r"shape \(3, 2\)"):
        scan_duplicates(data, pred_probs=np.zeros((3, 3)))
    with pytest.raises(DataError, match="log-probabilities"):
        scan_duplicates(data, pred_probs=np.full((3, 2), -1.5))
    assert [CopyOptions(hash_size=size).radius for size in (8, 16)] == [8, 32]


def test_the_coarse_bound_is_never_above_the_distance(photographs):
    data = dataset(photographs, [0] * 60)
    hashes = hash_pictures(data)
    thumbnails = Thumbnails(data.inputs, np.arange(60), hashes.digests, hashes.codes[:, 0], 8)
    rows, others = np.triu_indices(60, 1)
    for transform in (0, 3):
        full = thumbnails.squared_distances(rows, others, transform)
        coarse = thumbnails.may_be_copies(rows, others, transform)
        assert coarse[full <= 0.2].all()
        assert not coarse.all()


def test_real_cifar100(real_data):
    data = na.load("cifar100", data_root=real_data)
    first: dict[bytes, int] = {}
    known = set()
    for row, pixels in enumerate(data.inputs):
        if (other := first.setdefault(pixels.tobytes(), row)) != row:
            known.add((other, row))
    rows = np.unique([*(row for pair in known for row in pair), *range(0, 50_000, 25)])
    found = scan_duplicates(data.subset(rows))
    exact = {
        tuple(found.dataset.ids[members].tolist())
        for members, is_exact in zip(found.members, found.is_exact, strict=True)
        if is_exact
    }
    assert exact == known
    labels = data.labels
    assert sum(labels[a] != labels[b] for a, b in known) == 9
    near = found.is_conflict & ~found.is_exact
    assert near.sum() <= 1  # looked at: 12 among all 50,000, and all of them true
