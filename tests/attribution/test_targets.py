"""Targets: classes, callables, and what is refused in words."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vitrail.attribution import ExplainError, box_score, class_in_region, contrast, explain
from vitrail.attribution.targets import names_to_numbers, resolve
from vitrail.errors import UserError

LOGITS = torch.tensor([[0.0, 2.0, 1.0], [3.0, 1.0, 0.5]])


def test_none_is_the_predicted_class() -> None:
    goal = resolve(None, LOGITS, 2)
    assert goal.label == (1, 0)
    assert goal(LOGITS).tolist() == [2.0, 3.0]


def test_one_class_serves_all_and_a_list_one_each() -> None:
    assert resolve(2, LOGITS, 2)(LOGITS).tolist() == [1.0, 0.5]
    goal = resolve([1, 2], LOGITS, 2)
    assert goal(LOGITS).tolist() == [2.0, 0.5]
    assert goal.of(1)(LOGITS).tolist() == [1.0, 0.5]


def test_a_class_by_name() -> None:
    names = ("dog", "cat", "3")
    assert names_to_numbers("cat", names) == 1
    assert names_to_numbers(["3", "0", 1], names) == [2, 0, 1]
    assert names_to_numbers(np.int64(2), names) == 2 and names_to_numbers(None, names) is None
    with pytest.raises(UserError, match="no class 'cot'; close: cat"):
        names_to_numbers("cot", names)
    with pytest.raises(UserError, match="no class '²'"):
        names_to_numbers("²", names)
    with pytest.raises(ExplainError, match="target 'cat' is no number, and this model does not"):
        resolve(names_to_numbers("cat", ()), LOGITS, 2)
    with pytest.raises(ExplainError, match="target 1.5 is no number"):
        resolve([1.5, 1], LOGITS, 2)
    assert resolve(torch.tensor(2), LOGITS, 2) == resolve(np.int64(2), LOGITS, 2)


def test_a_run_and_a_module_that_know_their_classes() -> None:
    model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    run = SimpleNamespace(model=model, classes=("red", "green", "blue"))
    images = torch.rand(1, 3, 16, 16)
    found = explain(run, images, "occlusion", "blue", window=8)
    assert found.target == (2,)
    model.class_names = run.classes
    assert torch.equal(explain(model, images, "occlusion", ["blue"], window=8).map, found.map)


def test_contrast_is_a_difference_of_logits() -> None:
    goal = resolve(contrast(1, 2), LOGITS, 2)
    assert goal(LOGITS).tolist() == [1.0, 0.5]
    assert goal.label == "contrast(1, 2)"


def test_class_in_region_averages_inside_only() -> None:
    maps = torch.zeros(1, 2, 4, 4)
    maps[0, 1, :2, :2] = 3.0
    region = torch.zeros(2, 2)
    region[0, 0] = 1
    assert resolve(class_in_region(1, region), maps, 1)(maps).tolist() == [3.0]
    assert resolve(class_in_region(1), maps, 1)(maps).tolist() == [3.0]
    with pytest.raises(ExplainError, match="no pixel"):
        class_in_region(1, torch.zeros(4, 4))(maps)


def test_box_score_reads_detections() -> None:
    found = [{"scores": torch.tensor([0.9, 0.4]), "labels": torch.tensor([2, 1])}]
    assert resolve(box_score(1), found, 1)(found).tolist() == pytest.approx([0.4])
    assert resolve(box_score(0, label=1), found, 1)(found).tolist() == pytest.approx([0.4])
    with pytest.raises(ExplainError, match="found 1 boxes of class 2"):
        resolve(box_score(1, label=2), found, 1)


@pytest.mark.parametrize(
    ("target", "output", "said"),
    [
        (3, LOGITS, "classes 0 to 2"),
        ([1], LOGITS, "1 targets for 2 images"),
        (None, torch.zeros(2, 3, 4, 4), "callable"),
        (0, {"out": LOGITS}, "callable"),
        (lambda y: y.sum(), LOGITS, "one score for 2 images"),
        (lambda y: y, LOGITS, "one score a sample"),
    ],
)
def test_what_cannot_be_is_refused(target: object, output: object, said: str) -> None:
    with pytest.raises(ExplainError, match=said):
        resolve(target, output, 2)
