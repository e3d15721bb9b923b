"""The recipe: YAML there and back, and what is refused."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.data import Augment
from vitrail.errors import UserError
from vitrail.train import Recipe

ROOT = Path(__file__).parents[2]


@settings(max_examples=40, deadline=None)
@given(
    epochs=st.integers(1, 1000),
    seconds=st.none() | st.floats(1e-3, 1e5),
    lr=st.floats(1e-6, 1.0),
    ema=st.floats(0, 0.9999),
    weights=st.none()
    | st.text(st.characters(codec="utf-8", exclude_categories=("C",)), min_size=1),
    track=st.booleans(),
    scale=st.tuples(st.floats(0.01, 0.5), st.floats(0.5, 1.0)),
)
def test_yaml_there_and_back(scale: tuple[float, float], **values: object) -> None:
    recipe = Recipe(**values, min_lr=0.0, augment=Augment(scale=scale))  # type: ignore[arg-type]
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe


def test_yaml_files(tmp_path: Path) -> None:
    recipe = Recipe(epochs=3, augment=Augment(rand_augment=None))
    recipe.to_yaml(tmp_path / "r.yaml")
    assert Recipe.from_yaml(tmp_path / "r.yaml") == recipe
    assert Recipe.from_yaml(str(tmp_path / "r.yaml")) == recipe


def test_a_part_is_enough_and_plain_exponents_are_numbers() -> None:
    recipe = Recipe.from_yaml("lr: 1e-4\nepochs: 7\naugment:\n  flip: 0\n")
    assert recipe == Recipe(lr=1e-4, epochs=7, augment=Augment(flip=0.0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 5", r"no recipe key 'epoch'; close: epochs"),
        ("augment:\n  flop: 0.5", r"no recipe: augment key 'flop'; close: flip"),
        ("epochs: many", r"epochs must be int, not str 'many'"),
        ("epochs: 1.5", r"epochs must be int, not float 1.5"),
        ("epochs: true", r"epochs must be int, not bool"),
        ("lr: [1, 2]", r"lr must be float, not list"),
        ("compile: 1", r"compile must be bool, not int"),
        ("seconds: soon", r"seconds must be float, not str 'soon'"),
        ("augment:\n  scale: [0.1]", r"scale must be 2 values, not 1"),
        ("augment: strong", r"augment must be keys with values, not str"),
        ("lr: 0", r"lr must lie between"),
        ("lr: .nan", r"lr must lie between"),
        ("seconds: -1", r"seconds must be above 0"),
        ("class_weights: fair", r"no class_weights 'fair'; there are balanced"),
        ("class_weights: 3", r"class_weights must be str or a list, not int 3"),
        ("class_weights: [1, -2]", r"class_weights must be numbers from 0 to 1,000,000"),
        ("class_weights: [1, .nan]", r"class_weights must be numbers"),
        ("class_weights: [0, 0]", r"not all 0"),
        ("sampling: balance", r"no sampling 'balance'; close: balanced"),
        ("best: f1", r"no score for 'best' 'f1'; there are accuracy"),
        ("precision: fp8", r"no precision 'fp8'; close"),
        ("lr: 1e-6", r"min_lr \(1e-05\) lies above lr \(1e-06\)"),
        ("batch: 10\naccumulate: 4", r"batch of 10 cannot be cut into 4"),
        ("- 1\n- 2", r"lines of 'key: value'"),
        ("a: b: c", r"not YAML"),
        ("lr: !!python/object:os.system {}", r"not YAML"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Recipe.from_yaml(text + "\n")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(UserError, match="cannot read recipe 'nowhere.yaml'"):
        Recipe.from_yaml("nowhere.yaml")


def test_only_what_changes_results_is_compared() -> None:
    one = Recipe()
    assert one.differences(replace(one, workers=7, checkpoint_seconds=1.0, cache=False)) == []
    assert one.differences(replace(one, lr=0.5)) == ["lr: 0.001, 0.5"]


@pytest.mark.parametrize("count", [1, 20, 500, 3000, 10**6])
def test_a_suited_recipe_has_enough_updates_and_not_too_many_epochs(count: int) -> None:
    recipe = Recipe.suggest(count)
    updates = recipe.epochs * max(1, count // recipe.batch)
    assert 20 <= recipe.epochs <= 300
    assert updates >= min(1500, 300 * max(1, count // recipe.batch))
    assert Recipe.suggest(count, epochs=3, lr=0.01) == replace(recipe, epochs=3, lr=0.01)


@pytest.mark.parametrize(
    ("count", "batch", "epochs"), [(100, 16, 50), (3068, 32, 4), (10**6, 32, 3)]
)
def test_released_weights_ask_for_a_short_run_of_small_steps(
    count: int, batch: int, epochs: int
) -> None:
    recipe, scratch = Recipe.suggest(count, released=True), Recipe.suggest(count)
    assert (recipe.batch, recipe.epochs) == (batch, epochs)
    assert recipe.lr < scratch.lr and recipe.layer_decay < 1 and not recipe.mixup
    assert recipe.head_first and recipe.freeze_norms and recipe.augment.rand_augment is None
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe


def test_the_head_alone_is_fitted_unless_steps_are_asked_for() -> None:
    assert Recipe.suggest(3068, released=True, tune="head").fits_head_only
    for changes in ({"epochs": 5}, {"seconds": 60.0}, {"head_first": False}):
        assert not Recipe.suggest(3068, released=True, tune="head", **changes).fits_head_only
    assert not Recipe.suggest(3068, tune="head").fits_head_only
    with pytest.raises(UserError, match="with 0 epochs only the head is fitted"):
        Recipe(epochs=0)
    with pytest.raises(UserError, match="with 0 epochs only the head is fitted"):
        Recipe(epochs=0, head_first=True, seconds=5.0)


def test_every_field_stands_in_the_docs() -> None:
    page = (ROOT / "docs" / "how-to" / "training.md").read_text()
    for field in fields(Recipe):
        assert f"`{field.name}`" in page, field.name
