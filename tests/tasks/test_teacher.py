"""A teacher sees pictures as it learned to, answers for the student's classes, and never learns."""

import pytest
import torch
from torch import nn

import vitrail
from vitrail.errors import UserError
from vitrail.tasks import Teacher

PLAIN = {"image": 16, "mean": (0.0,) * 3, "std": (1.0,) * 3}
OTHER = {"image": 16, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}


class Echo(nn.Module):
    """Answers with the pictures it was shown."""

    def forward(self, x):
        return x


def teacher(model, own=PLAIN, student=OTHER, **options):
    return Teacher(model, name="t", own=own, student=student, **options)


def test_pictures_come_in_its_own_normalisation():
    raw = torch.rand(2, 3, 16, 16)
    mean, std = (torch.tensor(OTHER[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    torch.testing.assert_close(teacher(Echo())((raw - mean) / std), raw)
    same = torch.randn(2, 3, 16, 16)
    assert torch.equal(teacher(Echo(), student=PLAIN)(same), same)


def test_pictures_come_at_its_own_size():
    flat = torch.full((2, 3, 24, 32), 0.7)
    seen = teacher(Echo(), student=PLAIN)(flat)
    assert seen.shape == (2, 3, 16, 16)
    torch.testing.assert_close(seen, torch.full_like(seen, 0.7))


def test_it_answers_for_the_students_classes():
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4))
    x = torch.randn(2, 3, 16, 16)
    every = teacher(linear, student=PLAIN)(x)
    assert torch.equal(teacher(linear, student=PLAIN, order=[3, 1])(x), every[:, [3, 1]])


def test_it_never_learns_and_never_trains():
    model = teacher(nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(), nn.Flatten())).train()
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(model(x), model(x))
    assert not any(m.training for m in model.modules())
    assert not any(p.requires_grad for p in model.parameters())
    assert model.model[0].running_mean.eq(0).all()


def test_facts_tell_one_set_of_weights_from_another():
    model = nn.Linear(2, 2)
    before = teacher(model).facts()
    assert before == teacher(model).facts() and before["name"] == "t" and before["image"] == 16
    with torch.no_grad():
        model.bias[0] += 1
    assert teacher(model).facts() != before


def test_maps_of_a_backbone():
    plain = vitrail.create("vit_tiny(depth=4, dim=32, heads=2, patch=4)", classes=3, image=16)
    maps = teacher(plain, student=PLAIN).features(torch.randn(1, 3, 16, 16))
    assert [m.shape[1] for m in maps] == list(plain.channels)
    with pytest.raises(UserError, match="the teacher t has no maps; use feature=0"):
        teacher(Echo()).features(torch.randn(1, 3, 16, 16))


def test_grey_pictures_for_a_teacher_of_colour_are_refused():
    with pytest.raises(UserError, match="sees pictures of 3 channels, these have 1"):
        teacher(Echo(), student={"image": 16, "mean": (0.0,), "std": (1.0,)})
