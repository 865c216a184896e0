"""Slow, obvious versions of what the package computes fast."""

from __future__ import annotations

import itertools
import math

import numpy as np


def softmax(logits):
    shifted = [math.exp(z - max(logits)) for z in logits]
    return [value / sum(shifted) for value in shifted]


def per_example(logits, label):
    """Every recorded statistic of one example, in plain Python floats."""
    logits = [float(z) for z in logits]
    p = softmax(logits)
    others = [z for c, z in enumerate(logits) if c != label]
    error = [pc - (c == label) for c, pc in enumerate(p)]
    return {
        "correct": float(int(np.argmax(logits)) == label),
        "loss": -math.log(p[label]),
        "confidence": p[label],
        "max_confidence": max(p),
        "entropy": -sum(pc * math.log(pc) for pc in p if pc > 0),
        "logit_margin": logits[label] - max(others),
        "error_norm": math.sqrt(sum(value * value for value in error)),
        "last_confidence": p[label],
        "last_max_confidence": max(p),
    }


def recorded_means(epochs, labels, names):
    """Means over observations. `epochs`: per epoch a list of (row, logits), the last one wins."""
    n = len(labels)
    values = {name: [[] for _ in range(n)] for name in names}
    for observations in epochs:
        last = {}
        for row, logits in observations:
            last[row] = logits
        for row, logits in last.items():
            for name, value in per_example(logits, labels[row]).items():
                if name in values:
                    values[name][row].append(value)
    return {
        name: np.array(
            [
                (seen[-1] if name.startswith("last_") else np.mean(seen)) if seen else np.nan
                for seen in rows
            ]
        )
        for name, rows in values.items()
    }


def forgetting(correct):
    """One example's events from its list of 0/1 over epochs; never right scores len."""
    if not any(correct):
        return len(correct)
    return sum(before and not after for before, after in itertools.pairwise(correct))


def first_learned(correct, consecutive):
    """First epoch (from 1) that starts `consecutive` right ones in a row, else len + 1."""
    for start in range(len(correct) - consecutive + 1):
        if all(correct[start : start + consecutive]):
            return start + 1
    return len(correct) + 1
