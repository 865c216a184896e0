"""How a result shows itself in a notebook: one line and the head of a table."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["show_table"]

_ROWS = 15


def show_table(caption: str, frame: pd.DataFrame, rows: int = _ROWS) -> str:
    """HTML of the caption and the first rows; every text is escaped."""
    table = frame.head(rows).to_html(index=False, border=0, na_rep="", float_format="{:.4g}".format)
    left = len(frame) - rows
    more = f"<p>and {left:,} more rows</p>" if left > 0 else ""
    return f"<p><b>{escape(caption)}</b></p>{table}{more}"
