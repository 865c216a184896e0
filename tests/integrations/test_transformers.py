import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from noiseaudit import Recorder
from noiseaudit.errors import DataError, NoiseAuditWarning, UsageError
from noiseaudit.integrations.transformers import RecorderCallback

N, K, LENGTH = 10, 3, 5
LABELS = np.arange(N) % K
IDS = np.arange(N) * 7
TOKENS = torch.from_numpy(np.random.default_rng(0).integers(3, 20, (N, LENGTH)))
SNIPPET = """
from noiseaudit.integrations.transformers import RecorderCallback

train = train.add_column("sample_id", list(range(len(train))))
recorder = Recorder(labels=train["label"][:], num_classes=3)
arguments = TrainingArguments("run", remove_unused_columns=False, **settings)
callbacks = [RecorderCallback(recorder)]
Trainer(model, arguments, train_dataset=train, callbacks=callbacks).train()
recorder.rank("cumulative_loss").top(100)
"""
SETTINGS = {
    "num_train_epochs": 2, "per_device_train_batch_size": 2, "use_cpu": True, "report_to": [],
    "save_strategy": "no", "disable_tqdm": True, "learning_rate": 0.01,
}  # fmt: skip


def make_model(**options):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=8, max_position_embeddings=LENGTH, num_labels=K, **options,
    )  # fmt: skip
    return BertForSequenceClassification(config)


def make_examples(labels=LABELS, ids=IDS):
    return [
        {"input_ids": tokens, "labels": int(label), "sample_id": int(i)}
        for tokens, label, i in zip(TOKENS, labels, ids, strict=True)
    ]


def make_trainer(folder, recorder, *, model=None, examples=None, kind=Trainer, extra=(), **options):
    arguments = {"remove_unused_columns": False, **SETTINGS, **options}
    return kind(
        model or make_model(),
        TrainingArguments(str(folder), **arguments),
        train_dataset=make_examples() if examples is None else examples,
        eval_dataset=make_examples(LABELS[::-1].copy()),  # would be refused, if it were recorded
        callbacks=[RecorderCallback(recorder), *extra],
    )


class Spying(Trainer):
    """An independent record of the logits that training computed, by Trainer's own method."""

    def compute_loss(self, model, inputs, return_outputs=False, **options):
        ids = inputs["sample_id"]
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **options)
        if model.training:
            self.spied.append((ids, outputs["logits"].detach()))
        return (loss, outputs) if return_outputs else loss


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gradient_accumulation_steps": 2, "eval_strategy": "steps", "eval_steps": 1},
        {"label_smoothing_factor": 0.1, "bf16": True},  # keeps labels from the model
    ],
    ids=["plain", "accumulated", "smoothed"],
)
def test_every_training_batch_is_recorded_and_no_other(options, tmp_path):
    recorder, expected = (Recorder(LABELS, K, sample_ids=IDS) for _ in range(2))
    trainer = make_trainer(tmp_path, recorder, kind=Spying, **options)
    trainer.spied = []
    trainer.evaluate()
    trainer.train()
    trainer.evaluate()
    assert [len(ids) for ids, _ in trainer.spied] == [2] * 10  # two epochs of five batches
    for epoch in (trainer.spied[:5], trainer.spied[5:]):
        for ids, logits in epoch:
            expected.update(logits, torch.from_numpy(LABELS)[ids // 7], ids)
        expected.end_epoch()
    assert recorder.epoch == 2
    assert recorder.scores().equals(expected.scores())


def test_training_is_the_same_with_and_without(tmp_path):
    recorder = Recorder(LABELS, K, sample_ids=IDS)
    watched = make_trainer(tmp_path, recorder)
    watched.train()
    plain = Trainer(
        make_model(),
        TrainingArguments(str(tmp_path), **SETTINGS),
        train_dataset=[
            {name: item[name] for name in ("input_ids", "labels")} for item in make_examples()
        ],
    )
    plain.train()
    for ours, theirs in zip(watched.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    pickle.dumps(watched.model)  # what stays on the model can be stored
    assert watched.predict(make_examples()).predictions.shape == (N, K)
    assert recorder.epoch == 2


def test_a_model_that_returns_tuples(tmp_path):
    recorder = Recorder(LABELS, K, sample_ids=IDS)
    make_trainer(tmp_path, recorder, model=make_model(return_dict=False)).train()
    assert recorder.rank("cumulative_loss").scores.min() > 0


def test_training_that_stops_within_an_epoch(tmp_path):
    recorder = Recorder(LABELS, K, sample_ids=IDS)
    make_trainer(tmp_path, recorder, max_steps=7).train()
    history = recorder.evidence().history()
    assert (history >= 0).sum(axis=1).tolist() == [10, 4]


def test_the_snippet(tmp_path, monkeypatch):
    from datasets import Dataset

    train = Dataset.from_dict({"input_ids": TOKENS.tolist(), "label": LABELS.tolist()})
    names = {
        "train": train, "model": make_model(), "Recorder": Recorder, "Trainer": Trainer,
        "TrainingArguments": TrainingArguments, "settings": SETTINGS,
    }  # fmt: skip
    monkeypatch.chdir(tmp_path)
    exec(SNIPPET, names)
    assert names["recorder"].epoch == 2


def test_removed_columns_are_refused_when_the_trainer_is_made(tmp_path):
    with pytest.raises(UsageError, match="remove_unused_columns=False"):
        make_trainer(tmp_path, Recorder(LABELS, K), remove_unused_columns=True)


def test_a_callback_added_later(tmp_path):
    recorder = Recorder(LABELS, K, sample_ids=IDS)
    for remove in (True, False):
        arguments = TrainingArguments(str(tmp_path), remove_unused_columns=remove, **SETTINGS)
        trainer = Trainer(make_model(), arguments, train_dataset=make_examples())
        trainer.add_callback(RecorderCallback(recorder))
        if remove:
            with pytest.raises(UsageError, match="remove_unused_columns=False"):
                trainer.train()
    trainer.train()
    assert recorder.epoch == 2


def test_data_parallel_in_one_process_is_refused():
    arguments = SimpleNamespace(remove_unused_columns=False, n_gpu=2)
    with pytest.raises(UsageError, match="use torchrun"):
        RecorderCallback(Recorder(LABELS, K)).on_train_begin(arguments, None, None, model=None)


def test_batches_without_ids_or_with_other_labels_are_refused(tmp_path):
    nameless = [{n: v for n, v in item.items() if n != "sample_id"} for item in make_examples()]
    with pytest.raises(DataError, match="a training batch has no 'sample_id'"):
        make_trainer(tmp_path, Recorder(LABELS, K, sample_ids=IDS), examples=nameless).train()
    other = Recorder(LABELS[::-1].copy(), K, sample_ids=IDS)
    with pytest.raises(DataError, match="targets that differ"):
        make_trainer(tmp_path, other).train()


def test_a_model_that_does_not_classify(tmp_path):
    class Regressor(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(LENGTH))

        def forward(self, input_ids, labels):
            return {"loss": F.mse_loss(input_ids.float() @ self.weight, labels.float())}

    trainer = make_trainer(tmp_path, Recorder(LABELS, K, sample_ids=IDS), model=Regressor())
    with pytest.raises(DataError, match="has no 'logits'"):
        trainer.train()


def test_going_on_from_a_checkpoint_with_an_empty_recorder_warns(tmp_path):
    options = {"save_strategy": "epoch", "num_train_epochs": 1}
    first = Recorder(LABELS, K, sample_ids=IDS)
    make_trainer(tmp_path, first, **options).train()
    second = Recorder(LABELS, K, sample_ids=IDS)
    trainer = make_trainer(tmp_path, second, num_train_epochs=2)
    with pytest.warns(NoiseAuditWarning, match="goes on from step 5, the recorder begins empty"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    assert second.epoch == 1
