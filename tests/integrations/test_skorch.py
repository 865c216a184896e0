import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier
from skorch.callbacks import Callback

from noiseaudit import Recorder
from noiseaudit.errors import DataError, UsageError
from noiseaudit.integrations.skorch import IndexedLoader, RecorderCallback

N, K = 20, 3
X = np.random.default_rng(0).normal(0, 1, (N, 4)).astype(np.float32)
Y = np.arange(N) % K
SNIPPET = """
from noiseaudit.integrations.skorch import IndexedLoader, RecorderCallback

recorder = Recorder(labels=y, num_classes=3)
recording = {"iterator_train": IndexedLoader, "callbacks": [RecorderCallback(recorder)]}
net = NeuralNetClassifier(Module, train_split=None, **recording, **settings)
net.fit(X, y)
recorder.rank("cumulative_loss").top(10)
"""
SETTINGS = {"max_epochs": 2, "batch_size": 8, "lr": 0.5, "verbose": 0}


class Module(torch.nn.Module):
    def __init__(self, outputs=K, softmax=True):
        super().__init__()
        self.layer, self.softmax = torch.nn.Linear(4, outputs), softmax

    def forward(self, X):
        logits = self.layer(X)
        return logits.softmax(dim=1) if self.softmax else logits


class Spy(Callback):
    """Each training batch's inputs and module outputs."""

    def __init__(self):
        self.seen_ = []

    def on_batch_end(self, net, batch=None, training=None, y_pred=None, **_):
        if training:
            self.seen_.append((batch[0], y_pred.detach()))


def fit(recorder, kind=NeuralNetClassifier, y=Y, spy=None, **options):
    torch.manual_seed(0)
    callbacks = [RecorderCallback(recorder, options.pop("sample_ids", None)), spy or Spy()]
    options = {
        "iterator_train": IndexedLoader, "iterator_train__shuffle": True, "train_split": None,
        **SETTINGS, **options,
    }  # fmt: skip
    return kind(Module, callbacks=callbacks, **options).fit(X, y)


def expected_from(spy, labels=Y, batches=3):
    """The same statistics, each example found by its inputs instead of by its id."""
    recorder = Recorder(labels, K)
    for number, (inputs, output) in enumerate(spy.seen_, start=1):
        rows = torch.tensor([int(np.flatnonzero((x.numpy() == X).all(axis=1))[0]) for x in inputs])
        recorder.update(output, torch.from_numpy(labels)[rows], rows)
        if number % batches == 0:
            recorder.end_epoch()
    return recorder


def test_logits_are_recorded_as_they_are():
    recorder, spy = Recorder(Y, K), Spy()
    fit(recorder, spy=spy, module__softmax=False, criterion=torch.nn.CrossEntropyLoss)
    assert recorder.epoch == 2
    assert recorder.scores().equals(expected_from(spy).scores())


def test_probabilities_give_the_statistics_of_their_logits():
    by_logits, by_probs = Recorder(Y, K), Recorder(Y, K)
    fit(by_logits, module__softmax=False, criterion=torch.nn.CrossEntropyLoss)
    fit(by_probs)  # NLLLoss on probabilities, skorch's default
    np.testing.assert_allclose(by_probs.scores(), by_logits.scores(), rtol=1e-4, atol=1e-6)


def test_rows_of_a_split_are_those_of_the_whole_data():
    ids = np.arange(N) * 7
    recorder = Recorder(Y, K, sample_ids=ids)
    from skorch.dataset import ValidSplit

    fit(recorder, train_split=ValidSplit(4, stratified=False))  # a label out of step would raise
    history = recorder.evidence().correct_history
    assert (history[0] >= 0).sum() == 15
    assert (history[1] >= 0).tolist() == (history[0] >= 0).tolist()
    with pytest.raises(DataError, match="5 examples were never observed"):
        recorder.rank("cumulative_loss")


def test_ids_in_the_order_of_x():
    order = np.random.default_rng(1).permutation(N)
    recorder = Recorder(Y, K, sample_ids=np.arange(N))
    fit(recorder, y=Y, sample_ids=np.arange(N))
    shuffled = Recorder(Y[order], K, sample_ids=order)  # the same examples, listed otherwise
    fit(shuffled, y=Y, sample_ids=np.arange(N))
    rows = np.argsort(order)
    ours = shuffled.rank("cumulative_loss").scores[rows]
    np.testing.assert_array_equal(ours, recorder.rank("cumulative_loss").scores)


def test_a_binary_net_is_two_classes():
    labels = np.arange(N) % 2
    recorder, spy = Recorder(labels, 2), Spy()
    fit(
        recorder, NeuralNetBinaryClassifier, labels.astype(np.float32), spy,
        module__outputs=1, module__softmax=False, max_epochs=1,
    )  # fmt: skip
    inputs, output = spy.seen_[0]
    row = int(np.flatnonzero((inputs[0].numpy() == X).all(axis=1))[0])
    sign = 1 if labels[row] else -1
    expected = np.log1p(np.exp(-sign * float(output.reshape(-1)[0])))
    assert recorder.rank("cumulative_loss").scores[row] == pytest.approx(expected, rel=1e-5)


def test_prediction_scores_and_clones_work():
    recorder = Recorder(Y, K)
    net = fit(recorder)
    assert net.predict(X).shape == (N,)
    assert 0 <= net.score(X, Y) <= 1
    assert recorder.epoch == 2
    assert len(clone(net).fit(X, Y).history) == 2
    assert recorder.epoch == 2  # a clone records into a copy


def test_a_plain_loader_is_refused():
    from torch.utils.data import DataLoader

    with pytest.raises(UsageError, match="iterator_train=IndexedLoader"):
        fit(Recorder(Y, K), iterator_train=DataLoader)


def test_the_snippet():
    names = {
        "Recorder": Recorder, "NeuralNetClassifier": NeuralNetClassifier, "Module": Module,
        "X": X, "y": Y, "settings": SETTINGS,
    }  # fmt: skip
    exec(SNIPPET, names)
    assert names["recorder"].epoch == 2
