"""noiseaudit: which labels of a data set not to trust, why, and how sure that is.

Public names are resolved when first used, so that `import noiseaudit` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from noiseaudit.audit_report import AuditReport
    from noiseaudit.auditing import audit, rebuild_report
    from noiseaudit.clean_stage import Receipt, clean_dataset, read_audit_plan, verify_cleaned
    from noiseaudit.cleaning import CleaningPlan
    from noiseaudit.cleaning_policy import CleaningPolicy
    from noiseaudit.corruption import Corruption, apply_corruption, inject_noise
    from noiseaudit.cscore.cost import CScoreCost
    from noiseaudit.cscore.estimate import estimate_cscores, predict_cscore_cost
    from noiseaudit.cscore.result import CScores, load_cscores
    from noiseaudit.curvature_choice import CurvatureChoice, choose_curvature
    from noiseaudit.dataset import LabeledDataset
    from noiseaudit.detector import Detector, create_detectors, detector_types
    from noiseaudit.detectors.curvature import Curvature
    from noiseaudit.duplicate_groups import DuplicateGroups
    from noiseaudit.duplicates import find_duplicates
    from noiseaudit.encoders.choice import choose_encoder, create_encoder
    from noiseaudit.encoders.embedding import Embeddings, embed, encoded
    from noiseaudit.errors import (
        DataError,
        ManifestMismatchError,
        NoiseAuditError,
        NoiseAuditWarning,
        OutputError,
        UnknownNameError,
        UsageError,
    )
    from noiseaudit.evaluation import Evaluation, evaluate
    from noiseaudit.evidence import Evidence
    from noiseaudit.experiment import run_experiment
    from noiseaudit.experiment_report import ExperimentReport
    from noiseaudit.flag_reasons import explain_flags
    from noiseaudit.label_channel import LabelChannel, count_label_channel, fit_label_channel
    from noiseaudit.loaders import load
    from noiseaudit.memorization.profile import MemorizationProfile
    from noiseaudit.memorization.stage import memorization_profile
    from noiseaudit.model_scores import curvature
    from noiseaudit.noise_estimate import NoiseEstimate
    from noiseaudit.noise_estimation import (
        estimate_noise,
        estimate_noise_of_probs,
        estimate_noise_of_scores,
    )
    from noiseaudit.planted_flips import plant_flips, plant_rivals, weigh_plants
    from noiseaudit.ranking import Ranking
    from noiseaudit.recorder import Recorder
    from noiseaudit.review_budget import ReviewProgress, review_progress
    from noiseaudit.reviewing import AuditReview, review_audit
    from noiseaudit.training.augment import Augmentation
    from noiseaudit.training.recipes import Recipe
    from noiseaudit.verdict import Verdict

__all__ = [
    "AuditReport",
    "AuditReview",
    "Augmentation",
    "CScoreCost",
    "CScores",
    "CleaningPlan",
    "CleaningPolicy",
    "Corruption",
    "Curvature",
    "CurvatureChoice",
    "DataError",
    "Detector",
    "DuplicateGroups",
    "Embeddings",
    "Evaluation",
    "Evidence",
    "ExperimentReport",
    "LabelChannel",
    "LabeledDataset",
    "ManifestMismatchError",
    "MemorizationProfile",
    "NoiseAuditError",
    "NoiseAuditWarning",
    "NoiseEstimate",
    "OutputError",
    "Ranking",
    "Receipt",
    "Recipe",
    "Recorder",
    "ReviewProgress",
    "UnknownNameError",
    "UsageError",
    "Verdict",
    "__version__",
    "apply_corruption",
    "audit",
    "choose_curvature",
    "choose_encoder",
    "clean_dataset",
    "count_label_channel",
    "create_detectors",
    "create_encoder",
    "curvature",
    "detector_types",
    "embed",
    "encoded",
    "estimate_cscores",
    "estimate_noise",
    "estimate_noise_of_probs",
    "estimate_noise_of_scores",
    "evaluate",
    "explain_flags",
    "find_duplicates",
    "fit_label_channel",
    "inject_noise",
    "load",
    "load_cscores",
    "memorization_profile",
    "plant_flips",
    "plant_rivals",
    "predict_cscore_cost",
    "read_audit_plan",
    "rebuild_report",
    "review_audit",
    "review_progress",
    "run_experiment",
    "verify_cleaned",
    "weigh_plants",
]

__version__ = "0.1.0"

_HOMES = {
    "AuditReport": "audit_report",
    "AuditReview": "reviewing",
    "Augmentation": "training.augment",
    "CScores": "cscore.result",
    "CScoreCost": "cscore.cost",
    "CleaningPlan": "cleaning",
    "CleaningPolicy": "cleaning_policy",
    "Corruption": "corruption",
    "Curvature": "detectors.curvature",
    "CurvatureChoice": "curvature_choice",
    "DataError": "errors",
    "Detector": "detector",
    "DuplicateGroups": "duplicate_groups",
    "Embeddings": "encoders.embedding",
    "Evaluation": "evaluation",
    "Evidence": "evidence",
    "ExperimentReport": "experiment_report",
    "LabelChannel": "label_channel",
    "LabeledDataset": "dataset",
    "ManifestMismatchError": "errors",
    "MemorizationProfile": "memorization.profile",
    "NoiseAuditError": "errors",
    "NoiseAuditWarning": "errors",
    "NoiseEstimate": "noise_estimate",
    "OutputError": "errors",
    "Ranking": "ranking",
    "Receipt": "clean_stage",
    "Recipe": "training.recipes",
    "Recorder": "recorder",
    "ReviewProgress": "review_budget",
    "UnknownNameError": "errors",
    "UsageError": "errors",
    "Verdict": "verdict",
    "apply_corruption": "corruption",
    "audit": "auditing",
    "clean_dataset": "clean_stage",
    "choose_curvature": "curvature_choice",
    "choose_encoder": "encoders.choice",
    "count_label_channel": "label_channel",
    "create_detectors": "detector",
    "create_encoder": "encoders.choice",
    "curvature": "model_scores",
    "detector_types": "detector",
    "embed": "encoders.embedding",
    "encoded": "encoders.embedding",
    "estimate_cscores": "cscore.estimate",
    "estimate_noise": "noise_estimation",
    "estimate_noise_of_scores": "noise_estimation",
    "estimate_noise_of_probs": "noise_estimation",
    "evaluate": "evaluation",
    "explain_flags": "flag_reasons",
    "find_duplicates": "duplicates",
    "fit_label_channel": "label_channel",
    "inject_noise": "corruption",
    "load": "loaders",
    "load_cscores": "cscore.result",
    "memorization_profile": "memorization.stage",
    "plant_flips": "planted_flips",
    "plant_rivals": "planted_flips",
    "predict_cscore_cost": "cscore.estimate",
    "read_audit_plan": "clean_stage",
    "rebuild_report": "auditing",
    "review_audit": "reviewing",
    "review_progress": "review_budget",
    "run_experiment": "experiment",
    "verify_cleaned": "clean_stage",
    "weigh_plants": "planted_flips",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'noiseaudit' has no attribute {name!r}")
    return getattr(importlib.import_module(f"noiseaudit.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
