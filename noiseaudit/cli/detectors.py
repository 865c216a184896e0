"""`noiseaudit detectors`: what can be asked for, what it needs and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from noiseaudit.cli import options
from noiseaudit.cli.session import session

__all__ = ["detectors"]


def detectors(json: options.Json = False, debug: options.Debug = False) -> None:
    """List detectors: name, what it needs, cost, source paper."""
    with session(debug=debug):
        from noiseaudit.detector import detector_types

        rows = [
            {
                "name": kind.name,
                "summary": kind.summary,
                "needs": list(kind.needs),
                "cost": kind.cost,
                "source": kind.source,
            }
            for kind in detector_types().values()
        ]
        if json:
            import json as json_format

            print(json_format.dumps(rows, indent=2))
        else:
            _print_list(rows)


def _print_list(rows: Sequence[Mapping[str, object]]) -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console()
    for row in rows:
        needs = row["needs"]
        told = ", ".join(needs) if isinstance(needs, list) and needs else "nothing"
        console.print(Text(str(row["name"]), style="bold"))
        for line in (row["summary"], f"needs {told}; further cost: {row['cost']}", row["source"]):
            console.print(Padding(Text(str(line)), (0, 0, 0, 4)))
