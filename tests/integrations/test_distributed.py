"""Two processes with gloo on CPU: this one is rank 0, a child is rank 1."""

import warnings
from datetime import timedelta

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import noiseaudit as na
from noiseaudit.errors import DataError, NoiseAuditWarning, UsageError
from noiseaudit.integrations.distributed import end_epoch, gather_recorder
from tests._processes import start

N, K, EPOCHS, WORLD = 7, 3, 3, 2
LABELS = np.arange(N) % K
IDS = np.array([40, 3, 17, 5, 9, 22, 8])
SNIPPET = """
from noiseaudit.integrations.distributed import end_epoch, gather_recorder

for epoch in range(epochs):
    sampler.set_epoch(epoch)
    for inputs, targets, sample_ids in loader:
        logits = train_step(inputs, targets)
        recorder.update(logits, targets, sample_ids)
    end_epoch(recorder)  # instead of recorder.end_epoch()
merged = gather_recorder(recorder)  # the same in every process
"""


def begin(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", f"file://{folder}/store", rank=rank, world_size=WORLD,
        timeout=timedelta(seconds=60),
    )  # fmt: skip


def train(rank, folder):
    """What a user's script does: DDP training, recorded as in the snippet; all it saw is kept."""
    torch.manual_seed(0)
    inputs = torch.randn(N, 4)
    dataset = TensorDataset(inputs, torch.from_numpy(LABELS), torch.from_numpy(IDS))
    sampler = DistributedSampler(dataset, WORLD, rank)  # 7 examples: one is dealt out twice
    model = DistributedDataParallel(torch.nn.Linear(4, K))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    seen = []

    def train_step(inputs, targets):
        logits = model(inputs)
        optimizer.zero_grad()
        F.cross_entropy(logits, targets).backward()
        optimizer.step()
        seen.append(logits.detach())
        return logits

    recorder = na.Recorder(LABELS, K, sample_ids=IDS, class_sums=True)
    names = {
        "epochs": EPOCHS, "sampler": sampler, "recorder": recorder, "train_step": train_step,
        "loader": DataLoader(dataset, batch_size=2, sampler=sampler),
    }  # fmt: skip
    exec(SNIPPET, names)
    merged = names["merged"]
    torch.save(
        {"logits": torch.cat(seen), "scores": torch.tensor(merged.scores().to_numpy())},
        folder / f"rank{rank}.pt",
    )
    return merged


def one_by_one(rank):
    """Each rank sees one example of two, and example 0 in both; closed the plain way."""
    recorder = na.Recorder([0, 1], 2)
    ids = torch.tensor([0, rank])
    recorder.update(torch.zeros(2, 2), ids, ids)
    recorder.end_epoch()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gather_recorder(recorder)
    return [str(item.message) for item in caught if item.category is NoiseAuditWarning]


def idle(rank):
    """Rank 1 sees nothing at all."""
    recorder = na.Recorder([0, 1], 2)
    if rank == 0:
        recorder.update(torch.zeros(2, 2), torch.arange(2), torch.arange(2))
    end_epoch(recorder)
    return gather_recorder(recorder)


def mismatched(rank):
    recorder = na.Recorder([0, rank], 2)
    recorder.end_epoch()
    with pytest.raises(DataError, match="other labels"):
        gather_recorder(recorder)


def unfinished(rank):
    recorder = na.Recorder([0, 1], 2)
    if rank:
        recorder.update(torch.zeros(2, 2), torch.arange(2), torch.arange(2))
    with pytest.raises(UsageError, match="the epoch is not finished"):
        gather_recorder(recorder)


def everything(rank, folder):
    begin(rank, folder)
    try:
        mismatched(rank)  # both processes raise: none waits for the other
        unfinished(rank)
        return train(rank, folder), one_by_one(rank), idle(rank)
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    child = start(everything, 1, folder)
    try:
        results = everything(0, folder)
        child.join(60)
        assert child.exitcode == 0
    finally:
        child.kill()
    return results, [torch.load(folder / f"rank{rank}.pt") for rank in range(WORLD)]


def test_two_processes_equal_one_that_saw_the_same_logits(done):
    (merged, *_), ranks = done
    # Position j of rank r is number j * WORLD + r of the epoch: DistributedSampler deals in turn.
    per_epoch = [part["logits"].reshape(EPOCHS, -1, K) for part in ranks]
    whole = na.Recorder(LABELS, K, sample_ids=IDS, class_sums=True)
    sampler = DistributedSampler(range(N), 1, 0)
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        rows = torch.tensor([*sampler])
        rows = torch.cat([rows, rows[: N % WORLD]])  # its padding: the first once more
        logits = torch.stack([part[epoch] for part in per_epoch], dim=1).reshape(-1, K)
        whole.update(logits, torch.from_numpy(LABELS)[rows], torch.from_numpy(IDS)[rows])
        whole.end_epoch()
    assert len(rows) == N + 1
    np.testing.assert_allclose(merged.scores(), whole.scores(), rtol=1e-9)
    np.testing.assert_allclose(merged.pred_probs(), whole.pred_probs(), rtol=1e-6)
    assert (merged.evidence().history() >= 0).all()
    assert merged._observer.counts.tolist() == [EPOCHS] * N  # the padding counts once


def test_every_process_gets_the_same(done):
    first, second = (part["scores"] for part in done[1])
    assert torch.equal(first, second)


def test_epochs_closed_the_plain_way_are_told_of(done):
    messages = done[0][1]
    assert len(messages) == 1
    assert "1 observations count twice" in messages[0]


def test_a_process_that_saw_nothing(done):
    assert done[0][2].rank("cumulative_loss").scores.tolist() == pytest.approx([np.log(2)] * 2)


def test_without_a_process_group_it_is_the_recorder_itself():
    recorder = na.Recorder([0, 1], 2)
    recorder.update(torch.zeros(2, 2), torch.arange(2), torch.arange(2))
    end_epoch(recorder)
    assert recorder.epoch == 1
    assert gather_recorder(recorder) is recorder
