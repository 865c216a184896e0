"""Models: shapes, sizes by hand, errors, and the layer whose input is called the features."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from noiseaudit.errors import UnknownNameError, UsageError
from noiseaudit.seeding import isolated_torch_rng
from noiseaudit.training.models import (
    MODELS,
    build_model,
    choose_model,
    choose_threads,
    last_linear,
)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_mlp_has_the_papers_size():
    # 784*512 + 512 + 512*256 + 256 + 256*10 + 10
    assert count(build_model("mlp", (1, 28, 28), 10)) == 535_818


def test_inception_has_the_size_of_the_papers_table():
    # A Conv of i to o channels, kernel s: i*o*s*s weights, 2*o of batch norm; RGB in, 10 classes.
    #   Conv(3x3, 96)     3*96*9 + 192                                        2,784
    #   Block(32, 32)     96*32 + 64 + 96*32*9 + 64                          30,848
    #   Block(32, 48)     64*32 + 64 + 64*48*9 + 96                          29,856
    #   Conv(3x3, 160)    80*160*9 + 320                                    115,520
    #   Block(112, 48)    160*112 + 224 + 160*48*9 + 96                      87,360
    #   Block(96, 64)     160*96 + 192 + 160*64*9 + 128                     107,840
    #   Block(80, 80)     160*80 + 160 + 160*80*9 + 160                     128,320
    #   Block(48, 96)     160*48 + 96 + 160*96*9 + 192                      146,208
    #   Conv(3x3, 240)    144*240*9 + 480                                   311,520
    #   Block(176, 160)   240*176 + 352 + 240*160*9 + 320                   388,512
    #   Block(176, 160)   336*176 + 352 + 336*160*9 + 320                   543,648
    #   Linear            336*10 + 10                                         3,370
    assert count(build_model("inception", (3, 32, 32), 10)) == 1_895_786


def test_inception_halves_the_size_twice_and_pools_the_maximum():
    model = build_model("inception", (3, 32, 32), 10)
    pools = [module for module in model.modules() if isinstance(module, nn.AdaptiveMaxPool2d)]
    seen = []
    pools[0].register_forward_hook(lambda module, args, output: seen.append(args[0].shape))
    model(torch.zeros(2, 3, 32, 32))
    assert seen == [(2, 336, 8, 8)]


def test_resnet18_keeps_the_resolution_of_small_pictures_only():
    # torchvision's 11,181,642 for 10 classes has a 7x7 stem; 64*3*(49-9) weights fewer with 3x3.
    small = build_model("resnet18", (3, 32, 32), 10)
    large = build_model("resnet18", (3, 96, 96), 10)
    assert (count(small), count(large)) == (11_173_962, 11_181_642)
    assert small.conv1.stride == (1, 1)
    assert isinstance(small.maxpool, nn.Identity)
    assert build_model("resnet18", (1, 96, 96), 10).conv1.weight.shape == (64, 1, 7, 7)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 45, 61)])
def test_every_model_returns_a_row_of_logits_per_picture(name, shape):
    model = build_model(name, shape, 7).to(memory_format=torch.channels_last)
    assert model.training
    logits = model(torch.rand(2, *shape).contiguous(memory_format=torch.channels_last))
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("side", [16, 17, 24, 28, 32, 45, 64, 96])
@pytest.mark.parametrize("channels", [1, 3])
def test_cnn_takes_pictures_of_any_size_and_uses_every_pixel(side, channels):
    model = build_model("cnn", (channels, side, side), 3).eval()
    pictures = torch.rand(1, channels, side, side, requires_grad=True)
    stem = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    assert stem(pictures).shape[2] <= 24
    stem(pictures).pow(2).sum().backward()
    assert (pictures.grad != 0).all()
    assert model(pictures).shape == (1, 3)


def test_weights_are_a_function_of_the_seed():
    def weights(seed):
        with isolated_torch_rng(seed, "weights"):
            return build_model("cnn", (1, 16, 16), 3).state_dict()

    first, again, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_torchvision_models_take_grey_pictures():
    model = build_model("torchvision:mobilenet_v3_small", (1, 32, 32), 4)
    grey = torch.rand(2, 1, 32, 32)
    model.eval()
    assert model(grey).shape == (2, 4)
    assert torch.equal(model(grey), model[1](grey.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize(("name", "side"), [("googlenet", 32), ("inception_v3", 80)])
def test_torchvision_models_with_auxiliary_heads_return_logits_in_training(name, side):
    model = build_model(f"torchvision:{name}", (3, side, side), 4)
    assert model.training
    assert model(torch.rand(2, 3, side, side)).shape == (2, 4)


def test_a_factory_is_given_the_shape_and_the_number_of_classes():
    seen = []

    def factory(input_shape, num_classes):
        seen.append((input_shape, num_classes))
        return nn.Linear(input_shape[0], num_classes)

    assert isinstance(build_model(factory, (5,), 3), nn.Linear)
    assert seen == [((5,), 3)]


def test_the_check_leaves_a_factorys_model_in_its_mode_and_its_statistics_alone():
    model = nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 3))
    assert build_model(lambda shape, k: model, (5,), 3) is model
    assert model.training
    assert model[0].num_batches_tracked == 0


def test_unknown_names_get_a_suggestion():
    with pytest.raises(UnknownNameError, match="did you mean 'resnet18'"):
        build_model("resnet-18", (3, 32, 32), 10)
    with pytest.raises(UnknownNameError, match="did you mean 'resnet34'"):
        build_model("torchvision:resnet_34", (3, 32, 32), 10)


@pytest.mark.parametrize("name", ["cnn", "resnet18", "inception", "torchvision:resnet18"])
def test_picture_models_refuse_vectors(name):
    with pytest.raises(UsageError, match=r"needs pictures.*length 20; use --model mlp"):
        build_model(name, (20,), 3)


@pytest.mark.parametrize("name", ["cnn", "torchvision:inception_v3"])
def test_pictures_too_small_for_the_network_are_refused(name):
    with pytest.raises(UsageError, match=r"cannot take inputs of shape 1 x 1 x 1 \(too small\?\)"):
        build_model(name, (1, 1, 1), 3)


def test_a_factory_must_return_a_module_with_logits_of_the_right_shape():
    with pytest.raises(UsageError, match=r"must return a torch.nn.Module; got int"):
        build_model(lambda shape, k: 3, (5,), 3)
    with pytest.raises(UsageError, match=r"logits of shape \(b, 3\); got \(1, 2\)"):
        build_model(lambda shape, k: nn.Linear(5, 2), (5,), 3)
    with pytest.raises(UsageError, match="the model cannot take inputs of shape 5"):
        build_model(lambda shape, k: nn.Linear(4, 3), (5,), 3)


def test_choice_by_kind_size_and_device():
    assert choose_model((20,), "cuda") == "mlp"
    assert choose_model((1, 8, 8), "cuda") == "mlp"
    assert choose_model((1, 28, 28), "cpu") == "cnn"
    assert choose_model((3, 16, 15), "cpu") == "mlp"
    assert choose_model((3, 32, 32), "cuda") == "resnet18"


@pytest.mark.parametrize("name", [*MODELS, "torchvision:mobilenet_v3_small"])
def test_the_last_linear_layer_is_the_one_that_returns_the_logits(name):
    model = build_model(name, (3, 32, 32), 7)
    assert last_linear(model).out_features == 7


def test_a_model_without_a_linear_layer_has_no_features():
    with pytest.raises(UsageError, match=r"no nn\.Linear"):
        last_linear(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()))


def test_more_threads_only_where_a_batch_is_much_work(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    layers = [nn.Conv2d(3, 10, 3, padding=1), nn.Flatten(), nn.Linear(10 * 8 * 8, 5)]
    model = nn.Sequential(*layers, nn.BatchNorm1d(5))
    # 2 * 27 * 10 * 64 of the convolution, 2 * 640 * 5 of the linear layer: 40,960 an example.
    few = int(250e6 / 40_960)
    assert choose_threads(model, (3, 8, 8), few) == 1
    assert choose_threads(model, (3, 8, 8), few + 1) == 7
    assert model.training
    assert model[3].num_batches_tracked == 0
    assert not model[0]._forward_hooks
