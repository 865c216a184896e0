"""What a cleaned data set is made of, before it is written in any format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noiseaudit.errors import UsageError
from noiseaudit.sources.examples import Examples

__all__ = ["Cleaned"]


@dataclass(frozen=True, eq=False)
class Cleaned:
    """What is to be written.

    Attributes:
        examples: the whole source.
        rows: (m,) int64 positions in it that stay, in source order.
        labels: (m,) their class names.
        source: where the source lies: a file or folder, or a name.
        label_column: of a table.
        path_column: of a table.
        data_root: of a named data set.
    """

    examples: Examples
    rows: NDArray[np.int64]
    labels: NDArray[np.object_]
    source: str
    label_column: str = "label"
    path_column: str = "path"
    data_root: str | None = None

    @property
    def is_relabelled(self) -> NDArray[np.bool_]:
        """(m,) bool, whether the class is not the given one."""
        names = np.array(self.examples.class_names, dtype=object)
        return np.asarray(names[self.examples.labels[self.rows]] != self.labels)

    @property
    def paths(self) -> list[Path]:
        """Where the pictures that stay lie, absolute.

        Raises:
            UsageError: if the examples are no files.
        """
        if self.examples.sources is None or self.examples.root is None:
            raise UsageError("the examples of this source are no files: use --format npz or index")
        root = self.examples.root
        return [root / source for source in self.examples.sources[self.rows].tolist()]

    @property
    def split(self) -> NDArray[np.str_] | None:
        """(m,) or None."""
        return None if self.examples.split is None else self.examples.split[self.rows]

    @property
    def npz_path(self) -> Path | None:
        """The .npz that the source is, or that a named data set was read from."""
        own = Path(self.source)
        if own.suffix.lower() == ".npz":
            return own
        named = None if self.data_root is None else Path(self.data_root) / f"{self.source}.npz"
        return named if named is not None and named.is_file() else None

    def values_as_written(self, values: list[Any]) -> list[Any]:
        """Of the kept rows, from those of the whole source: the new class's where there is one.

        Args:
            values: as the source stores the label of each example; a class is written as in its
                first example.
        """
        written = [values[row] for row in self.rows.tolist()]
        first: dict[str, int] = {}
        names = np.array(self.examples.class_names, dtype=object)[self.examples.labels]
        for row, name in enumerate(names.tolist()):
            first.setdefault(name, row)
        for i in np.flatnonzero(self.is_relabelled).tolist():
            written[i] = values[first[self.labels[i]]]
        return written
