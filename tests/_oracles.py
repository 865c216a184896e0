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


def standardised(x):
    """Columns with mean 0 and deviation 1, constant ones 0."""
    x = np.asarray(x, np.float64)
    varies = np.ptp(x, axis=0) > 0
    return (x - x.mean(axis=0)) / np.where(varies, x.std(axis=0), np.inf)


def gaussian_features(x, landmarks):
    """Features whose inner products are the kernel exp(-d^2 / median), of evenly spaced rows."""
    squared = ((x[:, None] - x[None]) ** 2).sum(axis=2)
    kernel = np.exp(-squared / np.median(squared[np.triu_indices(len(x), 1)]))
    rows = np.linspace(0, len(x) - 1, min(len(x), landmarks)).astype(int)
    values, vectors = np.linalg.eigh(kernel[np.ix_(rows, rows)])
    kept = values > (1e-6 if len(rows) < len(x) else 1e-13) * values.max()
    return kernel[:, rows] @ vectors[:, kept] / np.sqrt(values[kept])


def refit_without_each(features, labels, num_classes, regularisation, weights):
    """(n, k) predictions of n ridge regressions, with an intercept that is not penalised."""
    n = len(features)
    targets, design = np.eye(num_classes)[labels], np.hstack([np.ones((n, 1)), features])
    distances = ((features - weights @ features / weights.sum()) ** 2).sum(axis=1)
    penalty = np.eye(design.shape[1]) * regularisation * (weights @ distances) / weights.sum()
    penalty[0, 0] = 0
    scores = np.empty((n, num_classes))
    for row in range(n):
        others = np.where(np.arange(n) == row, 0, weights)[:, None]
        found = np.linalg.solve(
            design.T @ (others * design) + penalty, design.T @ (others * targets)
        )
        scores[row] = design[row] @ found
    return scores
