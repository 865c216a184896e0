import importlib
import subprocess
import sys

import pytest

from noiseaudit.errors import NoiseAuditError

LIBRARIES = ("cleanlab", "datasets", "lightning", "skorch", "transformers")


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_bridge_without_its_library_names_the_extra(library, monkeypatch):
    monkeypatch.delitem(sys.modules, f"noiseaudit.integrations.{library}", raising=False)
    for name in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)  # as if it were not installed
    extra = {"cleanlab": "datalab"}.get(library, library)
    with pytest.raises(NoiseAuditError, match=rf"pip install 'noiseaudit\[{extra}\]'") as caught:
        importlib.import_module(f"noiseaudit.integrations.{library}")
    assert isinstance(caught.value, ImportError)  # what code that tries an import expects


def test_importing_noiseaudit_imports_none_of_them():
    code = (
        "import sys, noiseaudit, noiseaudit.integrations; "
        f"print([name for name in {(*LIBRARIES, 'sklearn', 'torch')!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
