import pytest
import torch
import torch.nn.functional as F
from torch import nn

import vitrail
from vitrail.errors import UserError
from vitrail.tasks import Distillation, distill


class Says(nn.Module):
    """A model with fixed logits, as a parameter."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))
        self.modes = []

    def forward(self, x):
        self.modes.append(self.training)
        return self.logits


IMAGES, LABELS = torch.zeros(2, 3, 8, 8), torch.tensor([0, 2])
STUDENT = [[1.0, 0.5, -1.0], [0.2, 0.1, 0.3]]
TEACHER = [[0.0, 4.0, 1.0], [3.0, 1.0, 2.0]]


def test_hard_distillation_is_deits_equation_3():
    student, teacher = Says(STUDENT), Says(TEACHER)
    got = distill(student, teacher, IMAGES, LABELS, how=Distillation())
    logits = student.logits
    wanted = (F.cross_entropy(logits, LABELS) + F.cross_entropy(logits, torch.tensor([1, 0]))) / 2
    torch.testing.assert_close(got, wanted)
    got.backward()
    assert student.logits.grad.any() and teacher.logits.grad is None


def test_soft_distillation_is_deits_equation_2():
    student, teacher = Says(STUDENT), Says(TEACHER)
    how = Distillation(kind="soft", alpha=0.1, tau=3.0)
    got = distill(student, teacher, IMAGES, LABELS, how=how)
    p, q = (torch.tensor(x).div(3).softmax(1) for x in (TEACHER, STUDENT))
    divergence = (p * (p.log() - q.log())).sum(1).mean()
    wanted = 0.9 * F.cross_entropy(student.logits, LABELS) + 0.1 * 9 * divergence
    torch.testing.assert_close(got, wanted)


def test_a_teacher_is_asked_in_evaluation_and_left_as_it_was():
    teacher = Says(TEACHER).train()
    distill(Says(STUDENT), teacher, IMAGES, LABELS, how=Distillation())
    assert teacher.modes == [False] and teacher.training


def test_deits_heads_hear_label_and_teacher_apart():
    student = vitrail.create("deit_tiny_distilled(depth=1)", classes=3, image=32)
    images = torch.randn(2, 3, 32, 32)
    how = Distillation(alpha=0.25)
    got = distill(student, Says(TEACHER), images, LABELS, how=how)
    label, word = student.forward_both(images)
    best = torch.tensor([1, 0])
    wanted = 0.75 * F.cross_entropy(label, LABELS) + 0.25 * F.cross_entropy(word, best)
    torch.testing.assert_close(got, wanted)
    distill(student, Says(TEACHER), images, LABELS, how=Distillation(alpha=1.0)).backward()
    assert not student.head.label.weight.grad.any() and student.head.teacher.weight.grad.any()


def test_shares_of_classes_and_a_loss_of_ones_own():
    shares = torch.tensor([[0.3, 0.7, 0.0], [0.0, 0.5, 0.5]])
    student = Says(STUDENT)
    how = Distillation(alpha=0.0)
    smooth = distill(
        student,
        Says(TEACHER),
        IMAGES,
        shares,
        how=how,
        loss=lambda x, y: F.cross_entropy(x, y, label_smoothing=0.1),
    )
    torch.testing.assert_close(smooth, F.cross_entropy(student.logits, shares, label_smoothing=0.1))


def test_maps_of_a_clustered_student_come_closer_to_its_plain_teachers():
    small = {"depths": (1, 1, 1, 1), "image": 32, "classes": 3}
    teacher = vitrail.create("coat_lite_tiny", **small)
    student = vitrail.create("clustering_coat_lite_tiny", **small)
    student.load_state_dict(teacher.state_dict())
    images = torch.randn(2, 3, 32, 32)
    how = Distillation(alpha=0.0, feature=1.0)
    optimiser = torch.optim.SGD(student.parameters(), 0.05)

    def nothing(logits, targets):
        return logits.sum() * 0

    losses = []
    for _ in range(8):
        optimiser.zero_grad()
        loss = distill(student, teacher, images, LABELS, how=how, loss=nothing)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert 0 < losses[-1] < 0.9 * losses[0]
    assert all(p.grad is None for p in teacher.parameters())
    same = distill(teacher, teacher, images, LABELS, how=how, loss=nothing)
    assert same.item() < 1e-9  # the teacher takes the schedule of inference: rounding


def test_a_timm_teacher_serves():
    timm = pytest.importorskip("timm")
    teacher = timm.create_model("resnet18", num_classes=3)
    student = vitrail.create("deit_tiny_distilled(depth=1)", classes=3, image=32)
    loss = distill(student, teacher, torch.randn(2, 3, 32, 32), LABELS, how=Distillation())
    loss.backward()
    assert loss.isfinite() and student.dist.grad.any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Distillation(kind="warm"), "kind is soft or hard"),
        (lambda: Distillation(alpha=1.5), "alpha from 0 to 1"),
        (lambda: Distillation(tau=0), "tau above 0"),
        (
            lambda: distill(
                Says(STUDENT), Says([[1.0, 2.0]] * 2), IMAGES, LABELS, how=Distillation()
            ),
            "the teacher knows 2 classes, the student 3; build the teacher with classes=3",
        ),
        (
            lambda: distill(
                Says(STUDENT), Says(TEACHER), IMAGES, LABELS, how=Distillation(feature=1.0)
            ),
            "needs maps of both",
        ),
        (
            lambda: distill(
                vitrail.create("vit_tiny(depth=4)", classes=3, image=32),
                vitrail.create("cct_2_3x2", classes=3, image=32),
                torch.zeros(2, 3, 32, 32),
                LABELS,
                how=Distillation(feature=1.0),
            ),
            "maps of student and teacher differ",
        ),
    ],
)
def test_what_cannot_be_is_said_in_words(call, message):
    with pytest.raises(UserError, match=message):
        call()
