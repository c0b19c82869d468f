"""Random weights under which a network's features are alive.

With torch's default initialisation a deep network's output is almost constant, and a wrong warp, a transposed cost
volume or a dropped layer would go unnoticed.
"""

import torch
from torch import nn


def he_weights(network: nn.Module, seed: int = 0) -> nn.Module:
    """He-scaled convolutions and random batch-normalisation statistics; evaluation mode."""
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor, scale):
        return scale * torch.randn(tensor.shape, generator=generator)

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = normal(module.weight, (2.0 / module.weight[0].numel()) ** 0.5)
            if module.bias is not None:
                module.bias.data = normal(module.bias, 0.05)
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.data = 1.0 + normal(module.weight, 0.2)
            module.bias.data = normal(module.bias, 0.1)
            module.running_mean = normal(module.running_mean, 0.1)
            module.running_var = 1.0 + 0.5 * torch.rand(module.running_var.shape, generator=generator)
    return network.eval()
