"""The report of a command: one self-contained HTML page, made from plain values."""

from noiseaudit.report.document import (
    AnalysisSection,
    ClassSummary,
    Copy,
    CopyGroup,
    DetectorTrust,
    EpochSummary,
    FindingLine,
    Histogram,
    Neighbour,
    PairSummary,
    ReportDocument,
    Suspect,
    VerdictSummary,
)
from noiseaudit.report.html import render, write_report
from noiseaudit.report.stored import document_from_dict, document_to_dict

__all__ = [
    "AnalysisSection",
    "ClassSummary",
    "Copy",
    "CopyGroup",
    "DetectorTrust",
    "EpochSummary",
    "FindingLine",
    "Histogram",
    "Neighbour",
    "PairSummary",
    "ReportDocument",
    "Suspect",
    "VerdictSummary",
    "document_from_dict",
    "document_to_dict",
    "render",
    "write_report",
]
