"""Settings of all analyses at a time: quick, full, and a smoke test."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from noiseaudit.errors import check_name
from noiseaudit.memorization.capacity import CapacitySettings, TimeToFitSettings
from noiseaudit.memorization.complexity import CriticalSettings
from noiseaudit.memorization.early_peak import EarlyPeakSettings
from noiseaudit.memorization.easy_examples import EasyExamplesSettings
from noiseaudit.memorization.regularizers import RegularizersSettings
from noiseaudit.memorization.sensitivity import UnrolledSettings
from noiseaudit.memorization.sensitivity_analyses import SensitivitySettings
from noiseaudit.memorization.training import TrainingSettings

__all__ = ["PRESETS", "ProfileSettings", "choose_preset"]

PRESETS = ("quick", "full", "smoke")


@dataclass(frozen=True)
class ProfileSettings:
    """Settings of every analysis; each is that of the function `analyze_<attribute>`.

    The defaults are those of the preset "quick".
    """

    easy_examples: EasyExamplesSettings = field(default_factory=EasyExamplesSettings)
    sensitivity_gini: SensitivitySettings = field(default_factory=SensitivitySettings)
    class_sensitivity: SensitivitySettings = field(
        default_factory=lambda: SensitivitySettings(unrolled=UnrolledSettings())
    )
    capacity: CapacitySettings = field(default_factory=CapacitySettings)
    time_to_fit: TimeToFitSettings = field(default_factory=TimeToFitSettings)
    critical_samples: CriticalSettings = field(default_factory=CriticalSettings)
    early_peak: EarlyPeakSettings = field(default_factory=EarlyPeakSettings)
    regularizers: RegularizersSettings = field(default_factory=RegularizersSettings)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, for a manifest or the key of a cache."""
        return asdict(self)


def choose_preset(name: str) -> ProfileSettings:
    """Settings by name.

    "quick": 1,000 examples (2,000 at most), pictures at about 14 pixels a side, two layers of at
    most 512 units; made for a CPU. "full": 10,000 examples at up to 32 pixels a side, two layers
    of 2,048 units (4,096 at most, as in the paper); made for a GPU. "smoke": shows that everything
    runs, in seconds, and measures nothing.

    Raises:
        UsageError: for another name.
    """
    check_name(name, PRESETS, "preset")
    return {"quick": ProfileSettings, "full": _full, "smoke": _smoke}[name]()


def _full() -> ProfileSettings:
    wide, side = (2048, 2048), 32
    return ProfileSettings(
        easy_examples=EasyExamplesSettings(
            side=side,
            training=TrainingSettings(hidden=wide, epochs=1, learning_rate=0.01, momentum=0.0),
        ),
        sensitivity_gini=SensitivitySettings(
            unrolled=UnrolledSettings(moments=tuple(range(50, 1001, 50))),
            unrolled_alone=UnrolledSettings(moments=tuple(range(200, 2001, 200))),
        ),
        class_sensitivity=SensitivitySettings(
            unrolled=UnrolledSettings(moments=tuple(range(64, 641, 64)))
        ),
        capacity=CapacitySettings(
            size=10_000,
            validation_size=10_000,
            side=side,
            shares=(0.0, 0.2, 0.4, 0.6, 0.8),
            widths=(8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096),
            training=TrainingSettings(epochs=60, learning_rate=0.01),
        ),
        time_to_fit=TimeToFitSettings(
            sizes=(1000, 2000, 5000, 10_000, 20_000),
            widths=(256, 512, 1024, 2048, 4096),
            side=side,
            training=TrainingSettings(hidden=wide, epochs=500, learning_rate=0.01, stop_at=1.0),
        ),
        critical_samples=CriticalSettings(
            size=10_000,
            validation_size=1000,
            side=side,
            epochs=(0, 1, 2, 4, 8, 16, 32, 64, 100),
            training=TrainingSettings(hidden=wide, learning_rate=0.01),
            max_iterations=100,
        ),
        early_peak=EarlyPeakSettings(
            size=10_000,
            validation_size=5000,
            side=side,
            shares=(0.2, 0.4, 0.6, 0.8),
            training=TrainingSettings(hidden=wide, epochs=300, learning_rate=0.01, stop_at=1.0),
        ),
        regularizers=RegularizersSettings(
            size=10_000,
            validation_size=5000,
            side=side,
            training=TrainingSettings(hidden=(512, 512), epochs=100, learning_rate=0.01),
        ),
    )


def _smoke() -> ProfileSettings:
    few, side = 60, 8
    brief = TrainingSettings(hidden=(16, 16), epochs=3, batch_size=20, stop_at=1.0)
    unrolled = UnrolledSettings(hidden=(8, 8), batch_size=20, moments=(1, 4))
    return ProfileSettings(
        easy_examples=EasyExamplesSettings(
            size=few,
            initializations=4,
            side=side,
            training=TrainingSettings(hidden=(16, 16), epochs=1, batch_size=20),
        ),
        sensitivity_gini=SensitivitySettings(few, side, 3, unrolled, unrolled),
        class_sensitivity=SensitivitySettings(few, side, 3, unrolled, unrolled),
        capacity=CapacitySettings(few, few, side, (0.0, 0.5), (4, 16), 2, brief),
        time_to_fit=TimeToFitSettings((20, few), (8, 16), side, brief),
        critical_samples=CriticalSettings(
            size=few,
            validation_size=20,
            side=side,
            shares=(0.0, 1.0),
            epochs=(0, 1, 3),
            training=TrainingSettings(hidden=(16, 16), batch_size=20),
            max_iterations=2,
        ),
        early_peak=EarlyPeakSettings(few, few, side, (0.5,), brief),
        regularizers=RegularizersSettings(
            size=few,
            validation_size=few,
            side=side,
            strengths=(("dropout", (0.5,)), ("input_noise", (1.0,)), ("weight_decay", (0.01,))),
            training=TrainingSettings(hidden=(16, 16), epochs=3, batch_size=20),
        ),
    )
