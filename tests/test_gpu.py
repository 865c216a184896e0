"""What only a CUDA device can show; skipped without one."""

import numpy as np
import pytest
import torch

import noiseaudit as na

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_recorder_update_does_not_synchronise(monkeypatch):
    monkeypatch.setattr("noiseaudit.observers._BUFFER_ELEMENTS", 1000)  # reduce many times
    recorder = na.Recorder(np.arange(512) % 10, 10)
    logits = torch.randn(512, 10, device="cuda")
    targets, ids = torch.arange(512, device="cuda") % 10, torch.arange(512, device="cuda")
    recorder.update(logits[:8], targets[:8], ids[:8])  # allocates
    torch.cuda.set_sync_debug_mode("error")
    try:
        for start in range(0, 512, 64):
            part = slice(start, start + 64)
            recorder.update(logits[part], targets[part], ids[part])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    recorder.end_epoch()
    expected = torch.nn.functional.cross_entropy(logits, targets, reduction="none").cpu()
    np.testing.assert_allclose(recorder.rank("cumulative_loss").scores, expected, rtol=1e-5)


def test_an_audit_on_cuda_agrees_with_one_on_the_cpu():
    reports = [na.audit("digits", epochs=5, model="mlp", device=name) for name in ("cpu", "cuda")]
    ranks = [report.rankings["cumulative_loss"].ranks for report in reports]
    assert np.corrcoef(*ranks)[0, 1] > 0.95  # different arithmetic and augmentation streams


def test_bfloat16_autocast_trains():
    report = na.audit("digits", epochs=3, device="cuda", recipe={"bfloat16": True})
    assert report.history[-1]["accuracy"] > 0.5
