"""What the options of ``vitrail.fit`` become."""

import inspect
from dataclasses import fields
from pathlib import Path

import pytest

import vitrail
from vitrail.errors import UserError
from vitrail.tasks.distill import SOFT, Distillation
from vitrail.train import Recipe, setup
from vitrail.train.options import FitOptions, build_recipe


def test_every_option_of_fit_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value of its own for each keyword is found in the options that the training is made of."""
    names = [
        n for n in inspect.signature(vitrail.fit).parameters if n not in ("resume_from", "on_event")
    ]
    given = {name: Path(name) if name == "out" else name for name in names}

    def arrive(options: FitOptions) -> None:
        raise UserError(repr({f.name: getattr(options, f.name) for f in fields(options)}))

    monkeypatch.setattr(setup, "prepare_job", arrive)
    with pytest.raises(UserError) as found:
        inspect.unwrap(vitrail.fit)(**given)  # its values are of no kind that fit takes
    assert str(found.value) == repr({f.name: given[f.name] for f in fields(FitOptions)})
    assert {f.name for f in fields(FitOptions)} == set(names)


def test_the_recipe_that_suits_with_changes() -> None:
    few = build_recipe(
        FitOptions(epochs=7, changes={"lr": 1e-4, "augment": {"flip": 0}}, seed=3), 100
    )
    assert (few.epochs, few.lr, few.augment.flip, few.seed) == (7, 1e-4, 0.0, 3)
    assert few.batch == 16
    assert build_recipe(FitOptions(), 50_000).epochs == 20


def test_a_recipe_file_with_changes(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("epochs: 3\nlr: 0.002\nseed: 5\n")
    recipe = build_recipe(FitOptions(recipe=path, changes={"lr": 0.004}), 100)
    assert (recipe.epochs, recipe.lr, recipe.seed) == (3, 0.004, 5)


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ({}, Distillation()),
        ({"distill": "soft"}, SOFT),
        ({"distill": "soft", "alpha": 0.4}, Distillation(kind="soft", alpha=0.4, tau=3.0)),
        (
            {"alpha": 0.9, "changes": {"distill": {"feature": 2}}},
            Distillation(alpha=0.9, feature=2.0),
        ),
    ],
)
def test_how_a_teacher_is_heard(typed, wanted) -> None:
    recipe = build_recipe(FitOptions(teacher="timm:resnet18", **typed), 100)
    assert recipe.teacher == "timm:resnet18" and recipe.distill == wanted


def test_the_teacher_of_a_recipe_file_is_heard_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("teacher: timm:resnet18\ndistill:\n  kind: soft\n  tau: 2\n")
    recipe = build_recipe(FitOptions(recipe=path, alpha=0.3), 100)
    assert recipe.distill == Distillation(kind="soft", alpha=0.3, tau=2.0)
    with pytest.raises(UserError, match="give one with --teacher RUN"):
        build_recipe(FitOptions(alpha=0.3), 100)


@pytest.mark.parametrize("recipe", [Recipe(epochs=3), {"epochs": 3}, "epochs: 3"])
def test_a_recipe_in_any_form(recipe: object) -> None:
    assert build_recipe(FitOptions(recipe=recipe), 100).epochs == 3  # type: ignore[arg-type]
