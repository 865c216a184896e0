import io
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from noiseaudit.cli import main
from tests._processes import start_command, wait_until


@pytest.fixture
def table(tmp_path):
    random = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = random.normal(0, 1, (60, 4)) + 3 * np.eye(4)[labels]
    lines = ["a,b,c,d,label"]
    lines += [
        ",".join(map(str, [*row, f"class{y}"])) for row, y in zip(features, labels, strict=True)
    ]
    path = tmp_path / "table.csv"
    path.write_text("\n".join(lines))
    return path


def test_audit_writes_its_files_and_shows_a_summary(table, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["audit", str(table), "--out", str(out), "--epochs", "2"]) == 0
    shown = capsys.readouterr()
    assert "Most suspicious labels" in shown.out
    assert "class1" in shown.out
    assert str(out / "report.html") in shown.out.replace("\n", "")
    assert "mlp" in shown.err  # what auto chose
    for name in ("ranking.csv", "report.html", "manifest.json"):
        assert (out / name).stat().st_size > 0


def test_json_is_all_there_is_on_stdout(table, tmp_path, capsys):
    arguments = ["audit", str(table), "--out", str(tmp_path / "o"), "--epochs", "2", "--json"]
    assert main(arguments) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["examples"] == 60
    assert len(summary["top"]) == 10
    assert summary["files"]["ranking"] == str(tmp_path / "o" / "ranking.csv")


def test_quiet_shows_nothing(table, tmp_path, capsys):
    assert main(["audit", str(table), "-o", str(tmp_path / "o"), "--epochs", "1", "-q"]) == 0
    shown = capsys.readouterr()
    assert shown.out == shown.err == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--detectors", "cumulative_los"], "did you mean 'cumulative_loss'"),
        (["--model", "resnet81"], "did you mean 'resnet18'"),
        (["--device", "tpu"], "unknown device 'tpu'"),
        (["--schedule", "triangle"], "did you mean 'triangular'"),
        (["--augmentation", "spin"], "unknown augmentation 'spin'"),
        (["--augmentation", "flip"], "for pictures"),
        (["--learning-rate", "-1"], "learning_rate must be positive"),
        (["--batch-size", "1"], "batch_size must be at least 2"),
        (["--epochs", "0"], "epochs"),
        (["--limit", "0"], "limit"),
        (["--threads", "0"], "threads"),
        (["--seed", "-1"], "seed"),
        (["--no-such-flag"], "such"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_names_the_way_out(
    table, tmp_path, capsys, arguments, words
):
    assert main(["audit", str(table), "--out", str(tmp_path / "o"), *arguments]) == 2
    shown = capsys.readouterr()
    assert words in shown.err
    assert "Traceback" not in shown.err
    assert not (tmp_path / "o" / "ranking.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fashion_mnst"], "fashion_mnist"),
        (["{tmp}/nowhere.csv"], "nowhere.csv"),
        (["{table}", "--label-column", "labels"], "label"),
        (["{table}", "--split", "test"], "split"),
    ],
)
def test_bad_input_is_exit_code_1_with_one_message(table, tmp_path, capsys, arguments, words):
    arguments = [item.format(tmp=tmp_path, table=table) for item in arguments]
    assert main(["audit", *arguments, "--out", str(tmp_path / "o")]) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ")
    assert words in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""


def test_named_data_without_its_folder_is_wrong_usage(tmp_path, capsys):
    assert main(["audit", "mnist", "--out", str(tmp_path / "o")]) == 2
    assert "mnist needs --data-root DIR" in capsys.readouterr().err


def test_out_is_required_and_no_command_shows_help(capsys):
    assert main(["audit"]) == 2
    assert "--out" in capsys.readouterr().err
    assert main(["adit"]) == 2
    main([])
    shown = capsys.readouterr()
    assert "audit" in shown.out + shown.err


def test_another_audits_folder_is_exit_code_1_with_the_differences(table, tmp_path, capsys):
    out = str(tmp_path / "o")
    assert main(["audit", str(table), "--out", out, "--epochs", "1", "-q"]) == 0
    assert main(["audit", str(table), "--out", out, "--epochs", "2", "-q"]) == 1
    assert "recipe.epochs: stored 1, now 2" in capsys.readouterr().err
    assert main(["audit", str(table), "--out", out, "--epochs", "2", "-q", "--no-resume"]) == 0


def test_debug_shows_the_traceback(tmp_path):
    from noiseaudit.errors import DataError

    with pytest.raises(DataError):
        main(["audit", str(tmp_path / "no.csv"), "--out", str(tmp_path / "o"), "--debug"])


def test_report_is_rebuilt(table, tmp_path, capsys):
    out = tmp_path / "o"
    main(["audit", str(table), "--out", str(out), "--epochs", "1", "-q"])
    (out / "report.html").unlink()
    assert main(["report", str(out)]) == 0
    assert (out / "report.html").exists()
    assert main(["report", str(tmp_path)]) == 1
    assert "holds no audit" in capsys.readouterr().err


def test_detectors_are_listed_for_people_and_for_programs(capsys):
    assert main(["detectors"]) == 0
    shown = capsys.readouterr().out
    assert "area_under_margin" in shown
    assert "NeurIPS 2020" in shown
    assert main(["detectors", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    names = [row["name"] for row in rows]
    assert "cumulative_loss" in names
    assert all(set(row) >= {"name", "needs", "cost", "source"} for row in rows)


def test_version(capsys):
    import noiseaudit

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"noiseaudit {noiseaudit.__version__}\n"


def test_ctrl_c_is_exit_code_130_and_the_same_command_goes_on(tmp_path):
    arguments = [
        "audit", "--limit", "300", "--out", str(tmp_path / "o"), "--epochs", "40",
        "--batch-size", "16", "--threads", "1",
    ]  # fmt: skip
    process = start_command(arguments, tmp_path / "errors")
    wait_until((tmp_path / "o" / "training" / "checkpoint.pt").exists, process)
    os.kill(process.pid, signal.SIGINT)
    process.join()
    errors = (tmp_path / "errors").read_text()
    assert process.exitcode == 130
    assert "run the same command again to go on" in errors
    assert "Traceback" not in errors
    assert main([*arguments, "-q"]) == 0


def test_columns_of_a_table_are_chosen(table, tmp_path):
    out = str(tmp_path / "o")
    names = table.read_text().splitlines()[0].split(",")[:-1]
    chosen = ["--feature-columns", ", ".join(names), "--drop-columns", names[1]]
    assert main(["audit", str(table), "--out", out, "--epochs", "1", "--quiet", *chosen]) == 0
    manifest = json.loads((tmp_path / "o" / "manifest.json").read_text())
    assert manifest["columns"]["left_out"] == {names[1]: "as asked"}
    assert manifest["origin"]["options"]["feature_columns"] == names


def test_wrong_options_are_found_before_the_data_is_read(tmp_path, capsys):
    nowhere = str(tmp_path / "nowhere")
    for wrong in (["--detectors", "x"], ["--model", "x"], ["--augmentation", "x"],
                  ["--learning-rate", "0"], ["--device", "x"]):  # fmt: skip
        assert main(["audit", nowhere, "--out", str(tmp_path / "o"), *wrong]) == 2
    assert "nowhere" not in capsys.readouterr().err


def test_a_terminal_that_cannot_show_a_class_name_does_not_stop_the_audit(tmp_path, monkeypatch):
    table = tmp_path / "t.csv"
    table.write_text("a,label\n" + "".join(f"{i % 2}.5,{'😀é'[i % 2]}\n" for i in range(8)))
    with monkeypatch.context() as patch, io.TextIOWrapper(io.BytesIO(), "ascii") as terminal:
        patch.setattr(sys, "stdout", terminal)
        code = main(["audit", str(table), "--out", str(tmp_path / "o"), "--epochs", "1"])
        terminal.flush()
        shown = terminal.buffer.getvalue()
    assert code == 0
    assert b"? " in shown


def test_output_into_a_closed_pipe_is_no_error():
    read, write = os.pipe()
    os.close(read)
    code = "import sys; from noiseaudit.cli import main; sys.exit(main(['detectors', '--json']))"
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    assert done.returncode == 0
    assert done.stderr == ""
