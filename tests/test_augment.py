"""Augmentation: values by hand on tiny pictures, determinism, and what is chosen for what."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from noiseaudit.errors import UnknownNameError, UsageError
from noiseaudit.seeding import torch_generator
from noiseaudit.training.augment import (
    Augmentation,
    augment,
    choose_augmentation,
    parse_augmentation,
)

EVERYTHING = Augmentation(crop=2, flip=True, rotation=10, scale=0.1, shift=0.1)


def stream(seed=0):
    return torch_generator(seed, "augmentation")


def pictures(b=64, channels=3, height=6, width=5):
    """Random pictures without a black pixel."""
    return torch.rand(b, channels, height, width, generator=stream(9)) * 0.9 + 0.1


def test_nothing_to_do_returns_the_input_and_draws_nothing():
    images, generator = pictures(), stream()
    before = generator.get_state()
    assert augment(images, Augmentation(), generator) is images
    assert torch.equal(generator.get_state(), before)


def test_the_same_generator_state_gives_the_same_pictures():
    images = pictures()
    generator = stream()
    first, second = (augment(images, EVERYTHING, generator) for _ in range(2))
    assert torch.equal(first, augment(images, EVERYTHING, stream()))
    assert not torch.equal(first, second)


def test_the_input_is_left_as_it_was():
    images = pictures()
    before = images.clone()
    augment(images, EVERYTHING, stream())
    assert torch.equal(images, before)


def test_the_global_generator_is_not_used():
    state = torch.get_rng_state()
    augment(pictures(), EVERYTHING, stream())
    assert torch.equal(torch.get_rng_state(), state)


def test_flip_mirrors_whole_pictures_about_half_of_the_time():
    images = pictures(b=200)
    flipped = augment(images, Augmentation(flip=True), stream())
    same = (flipped == images).flatten(1).all(1)
    mirrored = (flipped == images.flip(3)).flatten(1).all(1)
    assert torch.equal(same, ~mirrored)
    assert 70 <= int(mirrored.sum()) <= 130  # of 200 at one half, 4 standard deviations


def test_every_crop_is_a_window_of_the_black_padded_picture():
    images = pictures(b=300)
    cropped = augment(images, Augmentation(crop=2), stream())
    padded = F.pad(images, (2, 2, 2, 2))
    corners = []
    for old, new in zip(padded, cropped, strict=True):
        found = [
            (down, across)
            for down in range(5)
            for across in range(5)
            if torch.equal(old[:, down : down + 6, across : across + 5], new)
        ]
        assert len(found) == 1
        corners += found
    assert len(set(corners)) == 25  # every corner is drawn, 12 times on average


def test_crop_of_one_pixel_by_hand():
    image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    windows = {
        tuple(augment(image, Augmentation(crop=1), stream(seed)).flatten().tolist())
        for seed in range(200)
    }
    assert windows == {
        (0, 0, 0, 1), (0, 0, 1, 2), (0, 0, 2, 0),
        (0, 1, 0, 3), (1, 2, 3, 4), (2, 0, 4, 0),
        (0, 3, 0, 0), (3, 4, 0, 0), (4, 0, 0, 0),
    }  # fmt: skip


def test_a_vanishing_affine_map_is_the_identity():
    images = pictures()
    moved = augment(images, Augmentation(rotation=1e-9), stream())
    torch.testing.assert_close(moved, images, atol=1e-5, rtol=0)


def test_a_rotation_on_oblong_pictures_turns_about_the_centre_and_keeps_lengths():
    down, across = torch.meshgrid(torch.arange(31) - 15.0, torch.arange(61) - 30.0, indexing="ij")
    disc = torch.exp(-(down**2 + across**2) / 32).expand(16, 1, 31, 61)
    turned = augment(disc, Augmentation(rotation=180), stream())
    assert (turned - disc).abs().max() < 0.02  # bilinear error: f'' / 8 twice, 1/16/8 * 2 = 0.016
    bar = ((down.abs() < 2) & (across.abs() < 12)).float().expand(16, 1, 31, 61)
    mass = augment(bar, Augmentation(rotation=180), stream()).sum((1, 2, 3))
    torch.testing.assert_close(mass, bar.sum((1, 2, 3)), atol=0, rtol=0.02)


def test_scale_and_shift_stay_within_their_limits():
    square = torch.zeros(200, 1, 40, 40)
    square[:, :, 10:30, 10:30] = 1
    areas = augment(square, Augmentation(scale=0.2), stream()).sum((1, 2, 3)) / 400
    assert 0.62 < areas.min() < 0.72  # 0.8 squared
    assert 1.36 < areas.max() < 1.46  # 1.2 squared
    moved = augment(square, Augmentation(shift=0.1), stream())
    centre = (moved * torch.arange(40.0)).sum((1, 2, 3)) / moved.sum((1, 2, 3)) - 19.5
    assert 3.7 < centre.abs().max() <= 4.001


@pytest.mark.parametrize("name", ["crop", "flip", "affine", "affine,crop,flip"])
@pytest.mark.parametrize("channels", [1, 3])
def test_shape_type_and_memory_format_are_kept(name, channels):
    for memory_format in (torch.contiguous_format, torch.channels_last):
        images = pictures(channels=channels).contiguous(memory_format=memory_format)
        changed = augment(images, parse_augmentation(name), stream())
        assert changed.is_contiguous(memory_format=memory_format)
        assert (changed.shape, changed.dtype) == (images.shape, torch.float32)


def test_a_batch_of_one_and_an_empty_batch():
    assert augment(pictures(b=1), EVERYTHING, stream()).shape == (1, 3, 6, 5)
    assert augment(pictures(b=0), Augmentation(crop=2, flip=True), stream()).shape == (0, 3, 6, 5)


def test_parsing_names_and_combinations():
    assert parse_augmentation("none") == Augmentation()
    assert parse_augmentation("crop, flip") == Augmentation(crop=4, flip=True)
    assert parse_augmentation("affine").is_affine
    with pytest.raises(UnknownNameError, match="did you mean 'flip'"):
        parse_augmentation("crop,flp")
    with pytest.raises(UsageError, match="cannot be combined"):
        parse_augmentation("none,flip")


@pytest.mark.parametrize("field", ["crop", "rotation", "scale", "shift"])
def test_negative_amounts_are_refused(field):
    with pytest.raises(UsageError, match="at least 0"):
        Augmentation(**{field: -1})


def test_photographs_are_cropped_and_flipped_in_grey_and_colour():
    rng = np.random.default_rng(0)
    for shape in ((40, 32, 32), (40, 32, 32, 3)):
        chosen = choose_augmentation(rng.integers(0, 256, shape, dtype=np.uint8))
        assert chosen == Augmentation(crop=4, flip=True)
    assert choose_augmentation(rng.integers(0, 256, (9, 64, 80, 3), dtype=np.uint8)).crop == 8


def drawings(background, shape):
    rng = np.random.default_rng(0)
    inputs = np.full(shape, background, np.uint8)
    inputs[:, 4:10, 4:12] = rng.integers(0, 256, inputs[:, 4:10, 4:12].shape)
    return inputs


@pytest.mark.parametrize("background", [0, 130, 255])
@pytest.mark.parametrize("shape", [(30, 16, 16), (30, 16, 16, 3)])
def test_pictures_on_a_flat_background_are_never_flipped(background, shape):
    chosen = choose_augmentation(drawings(background, shape))
    assert chosen.is_affine
    assert not chosen.flip


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100"])
def test_choice_on_real_data(real_data, name):
    with np.load(real_data / f"{name}.npz") as file:
        chosen = choose_augmentation(file["x_test"])
    assert chosen.flip == name.startswith("cifar")
