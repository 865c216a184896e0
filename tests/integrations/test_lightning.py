import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from noiseaudit import Recorder
from noiseaudit.errors import DataError, NoiseAuditWarning
from noiseaudit.integrations.lightning import RecorderCallback

pytestmark = pytest.mark.filterwarnings("ignore:::lightning")
N, K = 10, 3
LABELS = np.arange(N) % K
IDS = np.arange(N) * 7
SNIPPET = """
from noiseaudit.integrations.lightning import RecorderCallback


class Model(BaseModel):
    def training_step(self, batch, batch_idx):  # a batch: inputs, targets, sample_ids
        logits = self(batch[0])
        return {"loss": F.cross_entropy(logits, batch[1]), "logits": logits}


Trainer(max_epochs=2, callbacks=[RecorderCallback(recorder)], **settings).fit(Model(), loader)
"""
SETTINGS = {
    "accelerator": "cpu", "logger": False, "enable_progress_bar": False,
    "enable_model_summary": False, "enable_checkpointing": False,
}  # fmt: skip


class BaseModel(LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(4, K)
        self.spied = []

    def forward(self, inputs):
        return self.layer(inputs)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)


class Model(BaseModel):
    def training_step(self, batch, batch_idx):
        inputs, targets, ids = batch
        logits = self(inputs)
        self.spied.append((logits.detach(), targets, ids))
        return {"loss": F.cross_entropy(logits, targets), "logits": logits}

    def validation_step(self, batch, batch_idx):
        return {"logits": self(batch[0])}


def make_loader(shuffle=True):
    torch.manual_seed(1)
    tensors = torch.randn(N, 4), torch.from_numpy(LABELS), torch.from_numpy(IDS)
    return DataLoader(TensorDataset(*tensors), batch_size=4, shuffle=shuffle)


def fit(recorder, model=None, *, callbacks=(), observe=None, **options):
    model = model or Model()
    path = options.pop("ckpt_path", None)
    trainer = Trainer(
        **{"max_epochs": 2, **SETTINGS, **options},
        callbacks=[RecorderCallback(recorder, observe=observe), *callbacks],
    )
    trainer.fit(model, make_loader(), make_loader(shuffle=False), ckpt_path=path)
    return model


@pytest.mark.parametrize(
    "options",
    [{}, {"accumulate_grad_batches": 2, "val_check_interval": 1, "num_sanity_val_steps": 2}],
    ids=["plain", "accumulated"],
)
def test_every_training_batch_is_recorded_and_no_other(options):
    recorder, expected = (Recorder(LABELS, K, sample_ids=IDS) for _ in range(2))
    model = fit(recorder, **options)
    assert len(model.spied) == 6  # two epochs of three batches
    for epoch in (model.spied[:3], model.spied[3:]):
        for batch in epoch:
            expected.update(*batch)
        expected.end_epoch()
    assert recorder.epoch == 2
    assert recorder.scores().equals(expected.scores())


def test_an_epoch_broken_off_is_closed():
    recorder = Recorder(LABELS, K, sample_ids=IDS)
    fit(recorder, max_steps=4, max_epochs=5)
    assert (recorder.evidence().history() >= 0).sum(axis=1).tolist() == [10, 4]


def test_a_checkpoint_holds_the_recorder_and_training_goes_on_from_it(tmp_path):
    whole, part, resumed = (Recorder(LABELS, K, sample_ids=IDS) for _ in range(3))
    fit(whole)
    saver = ModelCheckpoint(tmp_path, filename="last")  # saves after validation
    fit(part, max_epochs=1, callbacks=[saver], enable_checkpointing=True)
    fit(resumed, ckpt_path=str(tmp_path / "last.ckpt"))
    assert resumed.epoch == 2
    first = whole.evidence().history()[0]
    assert np.array_equal(resumed.evidence().history()[0], first)


def test_a_checkpoint_within_an_epoch_warns(tmp_path):
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=2)
    with pytest.warns(NoiseAuditWarning, match="in the middle of an epoch"):
        fit(Recorder(LABELS, K, sample_ids=IDS), callbacks=[saver], enable_checkpointing=True)


def test_batches_that_are_dicts_and_a_getter_of_ones_own():
    class ByName(Model):
        def training_step(self, batch, batch_idx):
            logits = self(batch["x"])
            return {"loss": F.cross_entropy(logits, batch["label"]), "logits": logits}

        def on_before_batch_transfer(self, batch, index):
            return dict(zip(("x", "label", "sample_id"), batch, strict=True))

        def validation_step(self, batch, batch_idx):
            pass

    class Other(Model):
        def training_step(self, batch, batch_idx):
            logits = self(batch[0])
            return {"loss": F.cross_entropy(logits, batch[1]), "z": logits}

    for model, observe in ((ByName(), None), (Other(), lambda o, b: (o["z"], b[1], b[2]))):
        recorder = Recorder(LABELS, K, sample_ids=IDS)
        fit(recorder, model, observe=observe)
        assert recorder.epoch == 2


def test_what_cannot_be_recorded_is_told():
    class Plain(Model):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx)["loss"]

    with pytest.raises(DataError, match="must return a dict with 'loss' and 'logits'"):
        fit(Recorder(LABELS, K, sample_ids=IDS), Plain())

    class NoIds(Model):
        def on_before_batch_transfer(self, batch, index):
            return {"label": batch[1], "x": batch[0]}

        def training_step(self, batch, batch_idx):
            logits = self(batch["x"])
            return {"loss": logits.sum(), "logits": logits}

        def validation_step(self, batch, batch_idx):
            pass

    with pytest.raises(DataError, match=r"no sample_ids.*the batch is a dict of label, x"):
        fit(Recorder(LABELS, K, sample_ids=IDS), NoIds())


def test_the_snippet():
    names = {
        "BaseModel": BaseModel, "F": F, "Trainer": Trainer, "settings": SETTINGS,
        "recorder": Recorder(LABELS, K, sample_ids=IDS), "loader": make_loader(),
    }  # fmt: skip
    exec(SNIPPET, names)
    assert names["recorder"].epoch == 2
