"""The README shows each bridge as its test runs it."""

import ast
from pathlib import Path

import pytest

HERE = Path(__file__).parent
README = (HERE.parent.parent / "README.md").read_text(encoding="utf-8")


def snippets():
    for path in sorted(HERE.glob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "").endswith(
                "SNIPPET"
            ):
                yield pytest.param(ast.literal_eval(node.value).strip("\n"), id=path.stem)


@pytest.mark.parametrize("snippet", snippets())
def test_the_readme_shows_what_is_run(snippet):
    assert f"```py\n{snippet}\n```" in README
    assert len(snippet.splitlines()) <= 10
