"""One training run: models, recipe, augmentation, loop and checkpoint."""
