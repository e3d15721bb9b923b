"""What parity tests measure of a model."""

import torch
from torch.utils.flop_counter import FlopCounterMode

import vitrail


def parameters_and_macs(name, image=None):
    """Parameters, and multiply-adds at the model's own size (or ``image``), nothing computed."""
    with torch.device("meta"):
        model = vitrail.create(name, image=image).eval()
    side = image or model.config.image
    counter = FlopCounterMode(display=False)
    with counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        model(torch.empty(1, model.in_chans, side, side, device="meta"))
    parameters = sum(p.numel() for p in model.parameters())
    return parameters, counter.get_total_flops() / 2


def randomised(model):
    """Weights and batch-norm statistics that make every part of the model matter."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in [*model.named_parameters(), *model.named_buffers()]:
            if not p.is_floating_point():
                continue
            noise = torch.randn(p.shape, generator=generator)
            if name.endswith("running_var"):
                p.copy_(0.5 + noise.abs())
            elif p.dim() > 1 and p.shape[0] > 1:
                p.copy_(noise / p[0].numel() ** 0.5)
            else:
                p.add_(0.1 * noise)
    return model.eval()


def assert_equal(got, wanted):
    """To 1e-5 of the largest number."""
    assert wanted.std() > 0.05  # the weights do something
    assert (got - wanted).abs().max() <= 1e-5 * max(1.0, wanted.abs().max())
