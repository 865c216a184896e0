"""The report of an audit: one self-contained HTML page, made from plain values."""

from noiseaudit.report.document import (
    ClassSummary,
    Copy,
    CopyGroup,
    EpochSummary,
    Histogram,
    PairSummary,
    ReportDocument,
    Suspect,
    document_from_dict,
    document_to_dict,
)
from noiseaudit.report.html import render, write_report

__all__ = [
    "ClassSummary",
    "Copy",
    "CopyGroup",
    "EpochSummary",
    "Histogram",
    "PairSummary",
    "ReportDocument",
    "Suspect",
    "document_from_dict",
    "document_to_dict",
    "render",
    "write_report",
]
