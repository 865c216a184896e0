"""The cleaning plan: policies, edits, decisions; and what `clean` writes, checks and refuses."""

import csv
import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import noiseaudit as na
from noiseaudit.cleaning import CleaningPlan
from noiseaudit.cleaning_policy import CleaningPolicy
from noiseaudit.cli import main
from noiseaudit.errors import DataError, OutputError, UnknownNameError, UsageError
from noiseaudit.plan_files import load_evidence, read_plan, save_evidence, write_plan
from tests._data import make_folder, make_npz, make_picture

NAMES = ("cat", "dog", "=cow")


def plan(**changes):
    """Ten examples: rows 0-2 look wrong, 8 and 9 are copies in conflict, 9 is in the test split."""
    n = 10
    values = {
        "class_names": NAMES,
        "ids": np.arange(n) * 2,
        "labels": np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2]),
        "suspicion": np.array([9.0, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
        "suggested": np.array([1, 1, 2, 0, 1, 1, 1, 1, 2, 2]),
        "suggested_prob": np.array([0.9, 0.6, 0.8, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]),
        "is_label_issue": np.arange(n) < 3,
        "copy_action": np.array([""] * 8 + ["keep", "remove"], dtype="<U7"),
        "reasons": np.array([f"reason {i}" for i in range(n)], dtype=object),
        "actions": np.full(n, "keep", dtype="<U7"),
        "new_labels": np.full(n, -1),
        "split": np.array(["train"] * 9 + ["test"]),
    }
    return CleaningPlan(**{**values, **changes})


def actions(text, **options):
    made = plan().with_policy(CleaningPolicy.parse(text, **{"min_per_class": 0, **options}))
    return "".join(action[2] for action in made.actions.tolist())  # keEp reMove reLabel reView


def test_policies_by_hand():
    # Row 9 would be removed as a copy, but it is in the test split.
    assert actions("review") == "vvveeeeeev"
    assert actions("issues") == "mmmeeeeeev"
    assert actions("confirmed") == "eeeeeeeeev"
    assert actions("share:0.2") == "mmeeeeeeev"
    assert actions("count:1") == "meeeeeeeev"
    assert actions("threshold:6") == "mmmmeeeeev"
    assert actions("issues", include_test=True) == "mmmeeeeeem"
    assert actions("issues", relabel_above=0.8) == "lmleeeeeev"
    assert plan().with_policy(CleaningPolicy("issues", None, 0.8, 0)).cleaned_labels[2] == 2


def test_no_class_falls_below_the_floor():
    # Of the four cats three would go: the least suspicious stay, those that are relabelled too.
    assert actions("issues", min_per_class=2) == "mmeeeeeeev"
    assert actions("issues", min_per_class=10) == "eeeeeeeeev"
    assert actions("issues", min_per_class=3, relabel_above=0.0) == "leeeeeeeev"
    assert actions("threshold:0", min_per_class=1) == "mmmemmmeev"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("isues", "did you mean 'issues'"), ("share", "share:NUMBER"), ("issues:3", "'issues'"),
        ("share:2", r"\[0, 1\]"), ("count:1.5", "whole number"), ("count:-1", "whole number"),
        ("share:x", "no number"), ("threshold:nan", "not finite"),
    ],
)  # fmt: skip
def test_policies_that_cannot_be(text, words):
    with pytest.raises(UsageError, match=words):
        CleaningPolicy.parse(text)


def test_options_of_a_policy_are_checked():
    with pytest.raises(UsageError, match="relabel_above"):
        CleaningPolicy("issues", relabel_above=1.5)
    with pytest.raises(UsageError, match="min_per_class"):
        CleaningPolicy("issues", min_per_class=-1)
    with pytest.raises(DataError, match="actions must be"):
        plan(actions=np.full(10, "drop", dtype="<U7"))
    with pytest.raises(DataError, match="exactly where"):
        plan(new_labels=np.zeros(10, int))


def decide(sample_id, given, action, new=""):
    return {"sample_id": sample_id, "given_label": given, "action": action, "new_label": new}


def test_the_last_decision_wins():
    made = plan().with_decisions(
        [
            decide(0, "cat", "remove"), decide(2, "cat", "relabel", "dog"),
            decide(0, "cat", "keep"), decide(4, "cat", "relabel", "cat"),
        ]
    )  # fmt: skip
    assert made.counts() == {"keep": 9, "remove": 0, "relabel": 1, "review": 0}
    assert made.cleaned_labels[1] == 1
    for bad, words in (
        (decide(1, "cat", "keep"), "no example"), (decide(0, "dog", "keep"), "labelled 'dog'"),
        (decide(0, "cat", "drop"), "must be of"), (decide(0, "cat", "relabel", "cow"), "no class"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=words):
            plan().with_decisions([bad])


def test_a_plan_survives_its_file(tmp_path):
    made = plan().with_policy(CleaningPolicy("issues", relabel_above=0.7, min_per_class=0))
    write_plan(made, tmp_path / "plan.csv")
    header = (tmp_path / "plan.csv").read_text().splitlines()[0]
    assert header.startswith("sample_id,source,given_label,action,new_label,reason,suspicion")
    save_evidence(made, tmp_path / "evidence.npz")
    read = read_plan(tmp_path / "plan.csv", load_evidence(tmp_path / "evidence.npz"))
    for name in ("suspicion", "suggested", "suggested_prob", "is_label_issue", "copy_action"):
        assert getattr(read, name).tolist() == getattr(made, name).tolist()
    for name in ("actions", "new_labels", "reasons", "split"):
        assert getattr(read, name).tolist() == getattr(made, name).tolist()
    again = read.with_policy(CleaningPolicy("confirmed"))
    assert (
        again.actions.tolist() == plan().with_policy(CleaningPolicy("confirmed")).actions.tolist()
    )


def edited(tmp_path, change, lines=None):
    made = plan()
    path = tmp_path / "plan.csv"
    write_plan(made, path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    change(rows)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), **(lines or {}))
        writer.writeheader()
        writer.writerows(rows)
    return read_plan(path, made)


def test_a_plan_edited_in_a_spreadsheet_is_read(tmp_path, caplog):
    def change(rows):
        rows[0]["action"] = " Remove"
        rows[3] |= {"action": "relabel", "new_label": "dog"}
        rows[4] |= {"action": "relabel", "new_label": "=cow", "suspicion": "04. Mai"}
        rows[5] |= {"action": "relabel", "new_label": "dog", "split": ""}
        rows.reverse()
        del rows[0]

    made = edited(tmp_path, change, {"delimiter": ";"})
    assert made.actions.tolist() == [
        "remove", "keep", "keep", "relabel", "relabel", *["keep"] * 5
    ]  # fmt: skip
    assert made.new_labels[3:5].tolist() == [1, 2]
    # What a policy goes by is not in the sheet: no edit of it can lift the test split's protection.
    again = made.with_policy(CleaningPolicy("share", 1.0, None, 0))
    assert again.actions.tolist() == ["remove"] * 8 + ["keep", "review"]
    assert "lacks 1 of 10 examples, first sample_id 18: they are kept" in caplog.text


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("action", "drop", "line 2: action must be of keep"),
        ("sample_id", "1", "line 2: sample_id '1' is no example"),
        ("sample_id", "2", "comes twice"),
        ("given_label", "dog", "given_label is 'dog', and was 'cat'"),
        ("new_label", "horse", "names no class: 'horse'"),
        ("source", "other.png", "was a part of the sheet sorted by itself"),
        ("new_label", "dog", "only 'relabel' takes one"),
    ],
)
def test_edits_that_make_no_sense_are_named_by_line(tmp_path, field, value, words):
    with pytest.raises(DataError, match=words):
        edited(tmp_path, lambda rows: rows[0].update({field: value}))


def test_in_python(tmp_path):
    made = plan(actions=np.array(["remove", "relabel", *["keep"] * 7, "review"], dtype="<U7"),
                new_labels=np.array([-1, 2, *[-1] * 8]))  # fmt: skip
    source = [(f"picture {i}", 7) for i in range(20)]
    subset = made.subset(source)
    assert len(subset) == 9
    assert subset[0] == ("picture 2", 2)
    assert subset[1] == ("picture 4", 7)
    assert made.weights().tolist() == [0, *[1] * 8, 0.5]
    assert made.curriculum().tolist() == [18, 16, 14, 12, 10, 8, 6, 4, 2]
    drawn = [list(made.sampler(seed=seed)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(drawn[0]) == 9
    assert 0 not in drawn[0]
    data = na.LabeledDataset(np.zeros((10, 3), np.float32), made.labels, NAMES, made.ids)
    cleaned = made.apply(data)
    assert cleaned.ids.tolist() == [2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert cleaned.labels[0] == 2
    with pytest.raises(DataError, match="other examples"):
        made.apply(data.subset(np.arange(5)))
    with pytest.raises(DataError, match="up to 18"):
        made.subset(source[:10])


# --- the command ---


@pytest.fixture
def pictures(tmp_path):
    root = make_folder(tmp_path / "pictures", {"train/cat": 14, "train/dog": 14, "test/dog": 3})
    (root / "train" / "cat" / "torn.png").write_bytes(b"no picture")
    return root


def audited(source, out, **options):
    options = {"epochs": 1, "model": "mlp", "threads": 1, "duplicates": False, **options}
    return na.audit(source, out=out, **options)


def digest_of(root):
    digest = hashlib.sha256()
    for path in sorted(Path(root).rglob("*")):
        digest.update(str(path.relative_to(root)).encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def files_of(root):
    return {str(path.relative_to(root)) for path in Path(root).rglob("*.png")}


def test_a_class_folder_is_cleaned_and_verified(tmp_path, pictures):
    report = audited(pictures, tmp_path / "audit")
    before = digest_of(pictures)
    ids = {
        str(source): int(i)
        for i, source in zip(report.dataset.ids, report.dataset.sources, strict=True)
    }
    saved = {
        "format": 1, "kind": "noiseaudit decisions",
        "data": report.dataset.content_digest, "labels": report.dataset.fingerprint["labels"],
        "decisions": [
            decide(ids["train/cat/0.png"], "cat", "remove"),
            decide(ids["train/cat/1.png"], "cat", "relabel", "dog"),
            decide(ids["test/dog/0.png"], "dog", "keep"),
        ],
    }  # fmt: skip
    (tmp_path / "decisions.json").write_text(json.dumps(saved))
    out = tmp_path / "clean"
    words = ["clean", str(tmp_path / "audit"), "--out", str(out)]
    assert (
        main([*words, "--policy", "confirmed", "--decisions", str(tmp_path / "decisions.json")])
        == 0
    )
    wanted = files_of(pictures) - {
        "train/cat/0.png", "train/cat/1.png", "train/cat/torn.png",
    } | {"train/dog/1__1.png"}  # fmt: skip
    assert files_of(out) == wanted
    moved = (out / "train" / "dog" / "1__1.png").read_bytes()
    assert moved == (pictures / "train" / "cat" / "1.png").read_bytes()
    assert (out / "train" / "dog" / "1.png").read_bytes() != moved
    assert digest_of(pictures) == before
    receipt = na.verify_cleaned(out, tmp_path / "audit")
    assert receipt.counts == {"keep": 29, "remove": 1, "relabel": 1, "review": 0, "unreadable": 1}
    assert (receipt.examples, receipt.written) == (32, 30)
    assert main([*words, "--verify"]) == 0
    again = na.load(out)  # a cleaned folder is a source like any other
    assert again.split.tolist().count("test") == 3
    assert main(words) == 1  # it is there already


@pytest.mark.parametrize("link", ["hard", "symlink"])
def test_links(tmp_path, pictures, link):
    audited(pictures, tmp_path / "audit")
    na.clean_dataset(tmp_path / "audit", tmp_path / "clean", link=link)
    path = tmp_path / "clean" / "train" / "cat" / "3.png"
    assert path.samefile(pictures / "train" / "cat" / "3.png")
    assert path.is_symlink() == (link == "symlink")
    na.verify_cleaned(tmp_path / "clean", tmp_path / "audit")
    path.unlink()
    with pytest.raises(DataError, match=r"1 files are gone: 'train/cat/3\.png'"):
        na.verify_cleaned(tmp_path / "clean", tmp_path / "audit")


def test_what_a_verification_finds(tmp_path, pictures):
    audited(pictures, tmp_path / "audit")
    out = tmp_path / "clean"
    na.clean_dataset(tmp_path / "audit", out)
    (out / "train" / "cat" / "new.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"1 files have come: 'train/cat/new\.png'"):
        na.verify_cleaned(out, tmp_path / "audit")
    (out / "train" / "cat" / "new.png").unlink()
    make_picture(99).save(out / "train" / "cat" / "2.png")
    with pytest.raises(DataError, match=r"1 files changed: 'train/cat/2\.png'"):
        na.verify_cleaned(out, tmp_path / "audit")
    (out / "files.csv").write_text("file,sample_id,digest\n")
    with pytest.raises(DataError, match=r"files\.csv has changed"):
        na.verify_cleaned(out, tmp_path / "audit")
    with pytest.raises(OutputError, match="no data set cleaned"):
        na.verify_cleaned(tmp_path, tmp_path / "audit")


def test_a_source_that_changed_is_refused_with_the_difference(tmp_path, pictures):
    audited(pictures, tmp_path / "audit")
    folder, out = tmp_path / "audit", tmp_path / "clean"
    path = pictures / "train" / "cat" / "5.png"
    kept = path.read_bytes()
    make_picture(99).save(path)
    with pytest.raises(DataError, match=r"1 examples have changed: 'train/cat/5\.png'"):
        na.clean_dataset(folder, out)
    path.unlink()
    with pytest.raises(DataError, match=r"1 files are gone: 'train/cat/5\.png'"):
        na.clean_dataset(folder, out)
    path.write_bytes(kept)
    make_picture(98).save(pictures / "train" / "cat" / "zz.png")
    with pytest.raises(DataError, match=r"has 33 examples and had 32: new are .*zz\.png"):
        na.clean_dataset(folder, out)
    (pictures / "train" / "cat" / "zz.png").unlink()
    (pictures / "train" / "cat").rename(pictures / "train" / "bat")
    with pytest.raises(DataError, match="14 files are gone"):
        na.clean_dataset(folder, out)
    assert not out.exists()


def test_tables_keep_their_other_columns(tmp_path):
    path = tmp_path / "table.csv"
    rows = [f"{i * 7 % 40},{i % 3}.50,00{i % 5},{('a', 'b')[i % 2]}" for i in range(40)]
    path.write_text("\n".join(["x,y,code,label", *rows]))
    report = audited(path, tmp_path / "audit")
    order = report.plan.order
    out = tmp_path / "clean"
    receipt = na.clean_dataset(tmp_path / "audit", out, policy=CleaningPolicy.parse("count:3"))
    assert receipt.output_format == "csv"
    gone = set(report.dataset.ids[order[:3]].tolist())
    wanted = ["x,y,code,label", *(row for i, row in enumerate(rows) if i not in gone)]
    assert (out / "cleaned.csv").read_text().splitlines() == wanted
    relabelled = CleaningPolicy.parse("count:3", relabel_above=0.0)
    na.clean_dataset(tmp_path / "audit", tmp_path / "other", policy=relabelled)
    made = na.load(tmp_path / "other" / "cleaned.csv")
    assert (made.labels != report.dataset.labels).sum() == report.plan.with_policy(
        relabelled
    ).counts()["relabel"]


def test_arrays_and_an_index(tmp_path):
    path = make_npz(tmp_path / "data.npz", n=30, shape=(8, 8))
    report = audited(path, tmp_path / "audit", detectors=["cumulative_loss"])
    policy = CleaningPolicy.parse("count:4", include_test=True)
    made = report.plan.with_policy(policy)
    na.clean_dataset(tmp_path / "audit", tmp_path / "clean", policy=policy)
    cleaned = na.load(tmp_path / "clean" / "cleaned.npz")
    kept = report.dataset.subset(made.is_kept)
    assert np.array_equal(cleaned.inputs, kept.inputs)
    assert cleaned.label_names().tolist() == kept.label_names().tolist()
    assert cleaned.split.tolist() == kept.split.tolist()
    na.clean_dataset(tmp_path / "audit", tmp_path / "index", policy=policy, format="index")
    with (tmp_path / "index" / "cleaned.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["sample_id"]) for row in rows] == kept.ids.tolist()
    with pytest.raises(UsageError, match="folder is for pictures"):
        na.clean_dataset(tmp_path / "audit", tmp_path / "x", format="folder")
    with pytest.raises(UnknownNameError):
        na.clean_dataset(tmp_path / "audit", tmp_path / "x", format="folders")


def test_what_was_not_audited_stays(tmp_path, pictures):
    audited(na.load(pictures, split="train", limit=10), tmp_path / "audit")
    receipt = na.clean_dataset(
        tmp_path / "audit", tmp_path / "clean", policy=CleaningPolicy("count", 2, min_per_class=0)
    )
    assert receipt.counts["remove"] == 2
    assert len(files_of(tmp_path / "clean")) == receipt.written == 30  # torn.png is not known


def test_an_edited_plan_is_not_overwritten(tmp_path, pictures, caplog):
    audited(pictures, tmp_path / "audit")
    path = tmp_path / "audit" / "plan.csv"
    text = path.read_text().replace(",keep,", ",remove,", 1)
    path.write_text(text)
    audited(pictures, tmp_path / "audit")
    assert path.read_text() == text
    assert "was edited and stays" in caplog.text
    assert na.read_audit_plan(tmp_path / "audit").counts()["remove"] == 1
    audited(pictures, tmp_path / "audit", resume=False)
    assert path.read_text() != text


def test_what_the_command_refuses(tmp_path, pictures, capsys):
    audited(pictures, tmp_path / "audit")
    folder = str(tmp_path / "audit")
    assert main(["clean", folder]) == 2
    assert "--out is needed" in capsys.readouterr().err
    assert main(["clean", folder, "--out", str(pictures / "in")]) == 2
    assert "never written to" in capsys.readouterr().err
    assert main(["clean", folder, "--out", "x", "--min-per-class", "3"]) == 2
    assert "go with --policy" in capsys.readouterr().err
    assert main(["clean", folder, "--out", "x", "--diff", "--verify"]) == 2
    assert main(["clean", str(tmp_path), "--out", str(tmp_path / "x")]) == 1
    assert "holds no audit" in capsys.readouterr().err
    words = ["clean", folder, "--out", str(tmp_path / "x"), "--policy"]
    assert main([*words, "threshold:-1", "--min-per-class", "0", "--include-test"]) == 1
    assert "nothing would be left of 'cat', 'dog'" in capsys.readouterr().err
    (tmp_path / "decisions.json").write_text('{"kind": "noiseaudit decisions", "format": 1}')
    assert main(["clean", folder, "--diff", "--decisions", str(tmp_path / "decisions.json")]) == 1
    assert "another audit" in capsys.readouterr().err
    arrays = (np.zeros((20, 3), np.float32), np.arange(20) % 2)
    audited(arrays, tmp_path / "arrays")
    assert main(["clean", str(tmp_path / "arrays"), "--out", str(tmp_path / "x")]) == 1
    assert "arrays in memory" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_diff_shows_and_writes_nothing(tmp_path, pictures, capsys):
    audited(pictures, tmp_path / "audit")
    before = digest_of(tmp_path)
    assert main(["clean", str(tmp_path / "audit"), "--diff", "--policy", "count:2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["counts"]["remove"] + told["counts"]["review"] == 2
    assert len(told["changes"]) == 2
    assert main(["clean", str(tmp_path / "audit"), "--diff", "--policy", "count:2"]) == 0
    assert "What would change" in capsys.readouterr().out
    assert digest_of(tmp_path) == before


def test_killed_at_any_moment_it_leaves_all_or_nothing(tmp_path):
    root = make_folder(tmp_path / "pictures", {"cat": 300, "dog": 300})
    audited(root, tmp_path / "audit")
    script = (
        "import sys, noiseaudit as na; na.read_audit_plan(sys.argv[1]); print(1, flush=True);"
        "na.clean_dataset(sys.argv[1], sys.argv[2])"
    )
    finished = 0
    for number in range(5):
        out = tmp_path / f"clean{number}"
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / "audit"), str(out)],
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.05 + 0.12 * number)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if out.exists():
            finished += 1
            na.verify_cleaned(out, tmp_path / "audit")
        else:
            na.clean_dataset(tmp_path / "audit", out)  # what was left lying does not matter
            na.verify_cleaned(out, tmp_path / "audit")
        assert not [*tmp_path.glob(".*noiseaudit-part")]
    assert finished < 5


def test_class_folders_of_torchvision_are_followed_by_path(tmp_path):
    from torchvision.datasets import ImageFolder

    root = make_folder(tmp_path / "pets", {"cat": 4, "dog": 4, "dog house": 4})
    report = audited(root, tmp_path / "audit")
    row = report.dataset.sources.tolist().index("dog/0.png")
    decided = report.plan.with_decisions(
        [decide(int(report.dataset.ids[row]), "dog", "remove")]
    )  # fmt: skip
    folder = ImageFolder(root)
    assert [path.endswith("dog/0.png") for path, _ in folder.samples].index(True) != row
    kept = {folder.samples[index][0] for index in decided.subset(folder).indices}
    assert {path for path, _ in folder.samples} - kept == {str(root / "dog" / "0.png")}
    folder.targets = [0] * 12
    with pytest.raises(DataError, match="targets are not the labels"):
        decided.subset(folder)


def test_an_npz_keeps_its_labels_and_its_other_arrays(tmp_path):
    random = np.random.default_rng(0)
    path = tmp_path / "data.npz"
    stored = {
        "x_train": random.normal(size=(40, 5)), "y_train": np.arange(40) % 3 + 4,
        "x_val": random.normal(size=(9, 5)), "y_val": np.arange(9) % 3 + 4,
        "weights_train": random.random(40), "units": np.array(["cm"] * 5),
    }  # fmt: skip
    np.savez(path, **stored)
    report = audited(path, tmp_path / "audit")
    policy = CleaningPolicy.parse("count:6", relabel_above=0.0)
    na.clean_dataset(tmp_path / "audit", tmp_path / "clean", policy=policy)
    made = report.plan.with_policy(policy)
    assert made.counts()["relabel"] > 0
    labels, kept = made.cleaned_labels + 4, made.is_kept
    with np.load(tmp_path / "clean" / "cleaned.npz") as found:
        assert set(found.files) == set(stored)
        assert found["y_train"].tolist() == labels[:40][kept[:40]].tolist()
        assert found["y_val"].tolist() == labels[40:][kept[40:]].tolist()
        assert np.array_equal(found["x_train"], stored["x_train"][kept[:40]])
        assert np.array_equal(found["weights_train"], stored["weights_train"][kept[:40]])
        assert found["units"].tolist() == stored["units"].tolist()


@pytest.mark.filterwarnings(
    "ignore::noiseaudit.errors.NoiseAuditWarning"
)  # ids, notes: no features
def test_a_parquet_keeps_its_types(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = [2**53 + 2 * i + 1 for i in range(40)]  # no float64 holds them
    table = pa.table(
        {
            "x": np.random.default_rng(0).normal(size=40), "label": [i % 2 + 1 for i in range(40)],
            "image_id": pa.array(numbers, pa.int64()),
            "note": [None, *"abc" * 13],
        }
    )  # fmt: skip
    pq.write_table(table, tmp_path / "table.parquet")
    report = audited(tmp_path / "table.parquet", tmp_path / "audit")
    policy = CleaningPolicy.parse("count:4", relabel_above=0.0)
    na.clean_dataset(tmp_path / "audit", tmp_path / "clean", policy=policy)
    found = pq.read_table(tmp_path / "clean" / "cleaned.parquet")
    made = report.plan.with_policy(policy)
    assert found.schema.types == table.schema.types
    rows = np.flatnonzero(made.is_kept).tolist()
    assert found.column("image_id").to_pylist() == [numbers[row] for row in rows]
    assert found.column("label").to_pylist() == (made.cleaned_labels[rows] + 1).tolist()


def test_a_name_that_is_taken_is_not_written_over(tmp_path):
    root = make_folder(tmp_path / "pictures", {"cat": 12, "dog": 12})
    make_picture(50).save(root / "dog" / "1__1.png")
    report = audited(root, tmp_path / "audit")
    place = int(report.dataset.ids[report.dataset.sources.tolist().index("cat/1.png")])
    make_picture(51).save(root / "dog" / f"1__{place}.png")
    report = audited(root, tmp_path / "audit2")
    place = int(report.dataset.ids[report.dataset.sources.tolist().index("cat/1.png")])
    saved = {
        "format": 1, "kind": "noiseaudit decisions", "data": report.dataset.content_digest,
        "labels": "", "decisions": [decide(place, "cat", "relabel", "dog")],
    }  # fmt: skip
    (tmp_path / "d.json").write_text(json.dumps(saved))
    receipt = na.clean_dataset(
        tmp_path / "audit2", tmp_path / "clean", decisions=tmp_path / "d.json"
    )
    assert len(files_of(tmp_path / "clean")) == receipt.written == len(files_of(root))
    na.verify_cleaned(tmp_path / "clean", tmp_path / "audit2")


def test_a_linked_class_folder_is_part_of_the_source(tmp_path):
    real = make_folder(tmp_path / "real", {"cat": 5})
    root = make_folder(tmp_path / "pictures", {"dog": 5})
    (root / "cat").symlink_to(real / "cat")
    audited(root, tmp_path / "audit")
    with pytest.raises(UsageError, match="never written to"):
        na.clean_dataset(tmp_path / "audit", real / "cat" / "cleaned")


def test_a_receipt_that_was_changed_is_not_believed(tmp_path, pictures):
    audited(pictures, tmp_path / "audit")
    out = tmp_path / "clean"
    na.clean_dataset(tmp_path / "audit", out, policy=CleaningPolicy("count", 2, None, 0))
    good = json.loads((out / "receipt.json").read_text())
    assert good["policy"] == {
        "kind": "count", "amount": 2, "relabel_above": None, "min_per_class": 0,
        "include_test": False,
    }  # fmt: skip
    for change, words in (
        ({"counts": {**good["counts"], "remove": 99}}, "do not agree"),
        ({"digests": {}}, "lacks 'changes.csv'"), ({"written": 3}, "were written"),
    ):  # fmt: skip
        (out / "receipt.json").write_text(json.dumps({**good, **change}))
        with pytest.raises(DataError, match=words):
            na.verify_cleaned(out, tmp_path / "audit")


def test_two_at_once_do_not_mix(tmp_path, pictures):
    from filelock import FileLock

    audited(pictures, tmp_path / "audit")
    with FileLock(tmp_path / ".clean.noiseaudit-lock"), pytest.raises(OutputError, match="another"):
        na.clean_dataset(tmp_path / "audit", tmp_path / "clean")
    na.clean_dataset(tmp_path / "audit", tmp_path / "clean")


def test_a_file_that_was_repaired_since_is_a_change(tmp_path, pictures):
    audited(pictures, tmp_path / "audit")
    make_picture(77).save(pictures / "train" / "cat" / "torn.png")
    with pytest.raises(DataError, match=r"torn\.png' could not be read when it was audited"):
        na.clean_dataset(tmp_path / "audit", tmp_path / "clean")


def test_a_person_may_drop_a_class_and_a_policy_may_not(tmp_path, pictures, caplog):
    audited(pictures, tmp_path / "audit")
    path = tmp_path / "audit" / "plan.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["action"] = "remove" if row["given_label"] == "cat" else "keep"
        row["new_label"] = ""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    na.clean_dataset(tmp_path / "audit", tmp_path / "clean")
    assert {Path(name).parts[1] for name in files_of(tmp_path / "clean")} == {"dog"}
    na.read_audit_plan(tmp_path / "audit", policy=CleaningPolicy("confirmed"))
    assert "takes the place of what was edited" in caplog.text


def test_a_class_called_na_survives_another_format(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["x,label", *(f"{i}.5,{('NA', 'b')[i % 2]}" for i in range(30))]))
    audited(path, tmp_path / "audit")
    policy = CleaningPolicy("confirmed")
    na.clean_dataset(tmp_path / "audit", tmp_path / "clean", policy=policy, format="parquet")
    found = na.load(tmp_path / "clean" / "cleaned.parquet")
    assert found.label_names().tolist() == na.load(path).label_names().tolist()
