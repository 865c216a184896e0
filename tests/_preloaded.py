"""What takes seconds to import and every process that trains needs."""

import torch

import noiseaudit.auditing
import noiseaudit.cli.audit
import noiseaudit.training.run  # noqa: F401 # all for later

torch.optim.SGD([torch.zeros(1)], lr=1)  # an optimiser imports more
