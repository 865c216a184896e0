"""Write the README's tables from benchmarks/results: `python benchmarks/tables.py [--check]`."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from _results import RESULTS

README = Path(__file__).parent.parent / "README.md"
SHOWN = ("cumulative_loss", "area_under_margin", "cumulative_confidence", "cumulative_accuracy",
         "el2n", "forgetting_events", "first_learned_epoch")  # fmt: skip


def load(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text())


def percent(figure: dict[str, float]) -> str:
    return f"{100 * figure['mean']:.2f} ± {100 * figure['half_width_95']:.2f}"


def planted_flips() -> str:
    lines = [
        "| data | detector | AUROC % | average precision % | removal rate % |",
        "|---|---|---|---|---|",
    ]
    for name, found in load("planted_flips")["datasets"].items():
        for detector in SHOWN:
            figures = found["summary"][detector]
            cells = (
                percent(figures[key]) for key in ("auroc", "average_precision", "removal_rate")
            )
            lines.append(f"| {name} ({found['examples']:,}) | `{detector}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def recorder_overhead() -> str:
    found = load("recorder_overhead")
    aum = found["recorder"]["aum_over_recorder"]["default"]
    training = found["training"]["watched_over_bare"]
    return "\n".join(
        [
            "| | ratio |",
            "|---|---|",
            f"| aum's `AUMCalculator` (one statistic) over `Recorder` (all of them), "
            f"one epoch of {found['recorder']['examples']:,} x 10 logits, batches of 128 "
            f"| {aum['median']:.0f} ({aum['lowest']:.0f} to {aum['highest']:.0f}) |",
            f"| training `cnn` with the audit's observer over the bare loop "
            f"| {training['median']:.3f} ({training['lowest']:.3f} to {training['highest']:.3f}) |",
        ]
    )


def filled(text: str) -> str:
    """The README with every table made anew."""
    for name, table in (
        ("planted_flips", planted_flips()),
        ("recorder_overhead", recorder_overhead()),
    ):
        pattern = rf"(<!-- table: {name} -->\n).*?(<!-- /table -->)"
        text, count = re.subn(
            pattern, lambda m, t=table: f"{m[1]}{t}\n{m[2]}", text, flags=re.DOTALL
        )
        if count != 1:
            raise SystemExit(f"the README has {count} places for the table {name}")
    return text


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    text = README.read_text(encoding="utf-8")
    wanted = filled(text)
    if parser.parse_args(arguments).check:
        return int(text != wanted)
    README.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
