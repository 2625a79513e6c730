"""Batch normalisation while a network is trained, and none of it afterwards."""

from torch import nn
from torch.nn.utils.fusion import fuse_linear_bn_eval

# Fewer rows have no variance.
LEAST_BATCH = 2


def with_batch_norm(layers: nn.Sequential) -> nn.Sequential:
    """The same layers, with a batch normalisation after each linear one but the last.

    The linear layers are shared, not copied. The new ones start as the identity of what is normalised
    (scale 1, shift 0), so nothing is drawn at random.
    """
    *hidden, last = layers
    normalised: list[nn.Module] = []
    for layer in hidden:
        normalised.append(layer)
        if isinstance(layer, nn.Linear):
            like = layer.weight
            normalised.append(nn.BatchNorm1d(layer.out_features, device=like.device, dtype=like.dtype))
    return nn.Sequential(*normalised, last)


def without_batch_norm(layers: nn.Sequential) -> nn.Sequential:
    """Plain layers that give what these give in evaluation mode, to rounding.

    With its statistics frozen a batch normalisation is a linear map of each neuron, so the linear layer
    before it can do its work: w -> w s, b -> (b - mean) s + shift, s = scale / sqrt(variance + epsilon).
    """
    plain: list[nn.Module] = []
    for layer in layers.eval():
        if isinstance(layer, nn.BatchNorm1d):
            linear = plain.pop()
            assert isinstance(linear, nn.Linear)
            plain.append(fuse_linear_bn_eval(linear, layer))
        else:
            plain.append(layer)
    return nn.Sequential(*plain)
