"""A whole choice with stand-ins for what takes long: phases, limits, stops, the answer."""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from vitrail.data import Preprocess, open_dataset
from vitrail.digests import KEY
from vitrail.errors import UserError
from vitrail.study.choose import question as question_page
from vitrail.study.choose import race, rounds
from vitrail.study.choose.answer import command, sentences, table, write_page
from vitrail.study.choose.check import load_choice
from vitrail.study.choose.lines import lines_of
from vitrail.study.choose.question import Opened, Question, split_parts
from vitrail.study.choose.race import Heat, first_heat, seats
from vitrail.study.choose.run import choose_in, over_limit
from vitrail.study.choose.state import ChoiceEntry, ChoiceState, MeasuredCost, Trial

POOL = ("timm:resnet18", "timm:resnet50", "timm:convnext_atto", "vit_tiny")
LIKE = MeasuredCost(params=10**6, megabytes=4.0, ms=5.0, batch=1, quiet=True)


class Blurred(nn.Module):
    """Features: the picture on a coarse grid, under noise of its own; more noise, worse."""

    def __init__(self, noise: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.noise = noise

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        coarse = nn.functional.adaptive_avg_pool2d(x, 7).flatten(1)
        luck = torch.Generator().manual_seed(int(1000 * x.double().sum().abs()) % 2**31)
        return (coarse + self.noise * torch.randn(coarse.shape, generator=luck)) * self.scale


@dataclass
class Stands:
    """What a choice works with, in no time; ``stop_at`` raises Ctrl-C before that trial."""

    noise: dict[str, float]
    stop_at: str = ""
    opened: list[str] = field(default_factory=list)
    tuned: list[tuple[str, float]] = field(default_factory=list)

    def pictures(self, question: Question):
        pictures = open_dataset(question.data)
        return replace(pictures, items=pictures.items[::4])

    def open(self, entry: ChoiceEntry, pictures) -> Opened:
        self.opened.append(entry.model)
        if entry.model not in self.noise:
            raise UserError(f"no weights for {entry.model}")
        released = entry.model.startswith("timm:")
        start = "released, MIT" if released else "from scratch"
        return Opened(
            model=Blurred(self.noise[entry.model]),
            preprocess=Preprocess(image=28),
            start=start,
            released=released,
        )

    def measure(
        self, entries: Sequence[ChoiceEntry], pictures, question: Question, note
    ) -> dict[str, MeasuredCost]:
        slow = {"timm:resnet50": replace(LIKE, ms=50.0)}
        return {entry.model: slow.get(entry.model, LIKE) for entry in entries}

    def tune(self, entry, pictures, parts, head, trial):
        assert (head is not None) == entry.released
        if entry.model == self.stop_at:
            raise KeyboardInterrupt
        self.tuned.append((entry.model, trial.seconds))
        trial.at.mkdir(parents=True, exist_ok=True)
        (trial.at / "model").write_text(entry.model)
        return 3, self.guess(entry.model, parts.compare)

    def answer(self, pictures, items, at: Path) -> np.ndarray:
        return self.guess((at / "model").read_text(), items)

    def guess(self, model: str, items) -> np.ndarray:
        luck = np.random.default_rng(len(model))
        share = 0.9 - self.noise[model] / 10
        right = luck.random(len(items)) < share
        labels = np.array([item.label for item in items])
        return np.where(right, labels, (labels + 1) % 10)


NOISE = {"timm:resnet18": 0.2, "timm:resnet50": 2.5, "timm:convnext_atto": 0.4, "vit_tiny": 1.0}


def ask(out: Path, stands: Stands, **changes) -> ChoiceState:
    question = Question(**{"data": "fashion", "pool": POOL, "minutes": 30.0} | changes)
    return choose_in(out, question, stands, lambda line: None)


def test_the_better_features_win_and_the_answer_says_so(tmp_path: Path) -> None:
    stands = Stands(NOISE)
    state = ask(tmp_path / "c", stands)
    assert state.winner in ("timm:resnet18", "timm:convnext_atto") and state.phase == "done"
    assert "points behind" in state.entry("timm:resnet50").left
    raced = {model for model, _ in stands.tuned}
    assert "timm:resnet50" not in raced and "vit_tiny" in raced  # one seat for those from scratch
    assert state.estimate is not None and state.estimate.tuned
    said = " ".join(sentences(state))
    assert state.winner in said and "winner's curse" in said and "nothing was chosen by" in said
    assert command(state).startswith(f"vitrail train fashion --model {state.winner} --weights auto")
    assert lines_of(state)[0].entry.model == state.winner
    shown = table(state)
    assert "timm:resnet50" in shown and "from scratch" in shown
    page = write_page(state, tmp_path / "c").read_text()
    assert "<svg" in page and state.winner in page and "<script" not in page


def test_the_last_pictures_are_asked_once_and_the_test_part_never(tmp_path: Path) -> None:
    pictures = open_dataset("fashion")
    parts = split_parts(pictures, 0)
    keys = [{item.key for item in part} for part in (parts.train, parts.compare, parts.last)]
    assert not (keys[0] & keys[1] or keys[1] & keys[2] or keys[0] & keys[2])
    assert not {item.key for item in pictures.split("test")} & set().union(*keys)
    val = [len(part & {item.key for item in pictures.split("val")}) for part in keys]
    assert val[0] == 0 and abs(val[1] - val[2]) <= len(pictures.classes)


def test_few_pictures_for_the_estimate_are_joined_by_some_of_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pictures = open_dataset("fashion")
    monkeypatch.setattr(question_page, "WANTED_LAST", 0)
    few = len(split_parts(pictures, 0).last)
    for wanted, share in ((few + 50, 0.125), (10**6, 0.02)):
        monkeypatch.setattr(question_page, "WANTED_LAST", wanted)
        monkeypatch.setattr(question_page, "MOST_TAKEN", share)
        parts, train = split_parts(pictures, 0), pictures.split("train")
        assert {*parts.train, *parts.last} >= set(train) and not {*parts.train} & {*parts.last}
        assert len(parts.last) - few == pytest.approx(min(50, share * len(train)), abs=10)
        assert {item.label for item in parts.train} == {item.label for item in train}


def test_random_features_are_asked_once_where_there_are_released_ones() -> None:
    done = rounds.Round(train=9, right="1", neighbours=0, strength=1, seconds=1)
    new, scratch = ChoiceEntry(model="new"), ChoiceEntry(model="scratch", rounds=(done,))
    released = ChoiceEntry(model="released", released=True, rounds=(done,))
    step = rounds.Step(train=(), asked=())
    assert rounds.to_probe([new, scratch, released], step) == ["new", "released"]
    assert rounds.to_probe([new, scratch], step) == ["new", "scratch"]
    assert rounds.to_probe([scratch, replace(released, left="behind")][:1], step) == ["scratch"]


def test_limits_come_first_and_what_breaks_them_is_not_opened(tmp_path: Path) -> None:
    stands = Stands(NOISE)
    state = ask(tmp_path / "c", stands, max_ms=10.0)
    assert "timm:resnet50" not in stands.opened
    assert state.entry("timm:resnet50").left == "over the limit: 50 ms for 1"
    question = Question(data="x", max_mb=3.0, max_params=10.0)
    assert "MB" in over_limit(LIKE, question)
    for _ in range(2):  # the same command says the same again
        with pytest.raises(UserError, match="no candidate keeps the limits"):
            ask(tmp_path / "d", stands, max_params=5.0)
    assert "No candidate is left" in sentences(load_choice(tmp_path / "d"))[0]


def test_one_that_cannot_be_timed_leaves_and_the_others_go_on(tmp_path: Path) -> None:
    class Unmeasured(Stands):
        def measure(self, entries, pictures, question, note):
            found = super().measure(entries, pictures, question, note)
            return found | {
                model: "does not fit here" for model in found if model not in self.noise
            }

    few = {"timm:resnet18": 0.2, "vit_tiny": 1.0}
    state = ask(tmp_path / "c", Unmeasured(few), minutes=0.05)
    assert state.entry("timm:resnet50").left == "cannot be had: does not fit here"
    assert state.winner == "timm:resnet18"
    with pytest.raises(UserError, match=r"can be had here .timm:resnet18: .* does not fit here"):
        ask(tmp_path / "d", Unmeasured({}))


def test_one_that_cannot_be_had_leaves_with_its_reason(tmp_path: Path) -> None:
    known = {name: noise for name, noise in NOISE.items() if name != "timm:resnet18"}
    state = ask(tmp_path / "c", Stands(known))
    assert state.entry("timm:resnet18").left == "cannot be had: no weights for timm:resnet18"
    assert state.winner == "timm:convnext_atto"
    with pytest.raises(UserError, match="no candidate could be probed"):
        ask(tmp_path / "d", Stands({}))


def test_ctrl_c_keeps_the_best_so_far_and_the_same_question_goes_on(tmp_path: Path) -> None:
    stands = Stands(NOISE, stop_at="timm:convnext_atto")
    with pytest.raises(KeyboardInterrupt):
        ask(tmp_path / "c", stands)
    stopped = ChoiceState.load(tmp_path / "c")
    assert stopped.winner and stopped.estimate is None and stopped.phase == "race"
    assert "stopped early" in " ".join(sentences(stopped))
    again = Stands(NOISE)
    state = ask(tmp_path / "c", again)
    assert state.phase == "done" and state.estimate is not None
    assert state.seconds >= stopped.seconds and set(again.opened) <= {
        "timm:resnet18",
        "timm:convnext_atto",
    }
    assert ask(tmp_path / "c", Stands({})).winner == state.winner  # done is done
    with pytest.raises(UserError, match="holds another choice .seed was 0, is 1"):
        ask(tmp_path / "c", again, seed=1)


def test_first_weights_hang_on_the_seed_and_on_nothing_before(tmp_path: Path) -> None:
    class Drawing(Stands):
        def open(self, entry: ChoiceEntry, pictures) -> Opened:
            drawn.append(float(torch.rand(())))
            return super().open(entry, pictures)

    drawn: list[float] = []
    for name, seed in (("c", 0), ("d", 0), ("e", 1)):
        torch.rand(3)  # a choice gone on with has measured nothing before, another one has
        ask(tmp_path / name, Drawing(NOISE), minutes=0.05, seed=seed)
        assert len(set(drawn)) == 1 + (seed > 0)


def test_a_race_that_spoils_the_winner_leaves_the_answer_to_its_probe(tmp_path: Path) -> None:
    class Spoiling(Stands):
        def guess(self, model: str, items) -> np.ndarray:
            return np.zeros(len(items), int)

    state = ask(tmp_path / "c", Spoiling(NOISE))
    assert state.estimate is not None and not state.estimate.tuned
    assert state.entry(state.winner).trials
    assert state.estimate.right / state.estimate.count > 0.3  # a class of ten alone has 0.1
    assert "linear head" in " ".join(sentences(state))


def test_without_time_for_a_race_the_probe_answers(tmp_path: Path) -> None:
    stands = Stands(NOISE)
    state = ask(tmp_path / "c", stands, minutes=0.05)
    assert not stands.tuned and state.winner and state.estimate is not None
    assert not state.estimate.tuned and "linear head" in " ".join(sentences(state))


def test_a_damaged_state_is_one_line(tmp_path: Path) -> None:
    state = ask(tmp_path / "c", Stands(NOISE), minutes=0.05)
    at = tmp_path / "c" / "choose.json"
    values = json.loads(at.read_text()) | {"winner": "nobody"}
    values.pop("sha256", None)
    at.write_text(json.dumps(values))
    with pytest.raises(UserError):
        ChoiceState.load(tmp_path / "c")
    with pytest.raises(UserError, match="no choice to go on with"):
        ChoiceState.load(tmp_path)
    assert state.winner


WRONG: tuple[tuple[tuple[str | int, ...], object], ...] = (
    (("phase",), "dance"),
    (("seconds",), float("nan")),
    (("question",), {}),
    (("question", "max_ms"), "fast"),
    (("facts", "started"), 3),
    (("estimate", "count"), 0),
    (("entries", 2, "cost", "ms"), 0),
    (("entries", 2, "rounds", 0, "right"), "01"),
    (("entries", 2, "rounds", 0, "right"), "yes"),
    (("entries", 2, "trials", 0, "run"), "../elsewhere"),
    (("entries", 1, "model"), POOL[0]),
)


def test_values_that_no_choice_has_are_refused_and_changed_pictures_too(tmp_path: Path) -> None:
    ask(tmp_path / "c", Stands(NOISE))
    at = tmp_path / "c" / "choose.json"
    whole = {k: v for k, v in json.loads(at.read_text()).items() if k != KEY}
    assert whole["winner"] == POOL[2] and whole["entries"][2]["trials"]
    for path, value in WRONG:
        values = inner = copy.deepcopy(whole)
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        at.write_text(json.dumps(values))
        with pytest.raises(UserError, match=r"choose.json'(:| is damaged)"):
            load_choice(tmp_path / "c")
    whole["facts"]["pictures"] = "0" * 64
    at.write_text(json.dumps(whole))
    with pytest.raises(UserError, match="the pictures have changed"):
        ask(tmp_path / "c", Stands(NOISE))


def test_rounds_grow_threefold_and_end_with_everything() -> None:
    pictures = open_dataset("fashion")
    parts = split_parts(pictures, 0)
    steps = rounds.ladder(parts.train, parts.compare, 10, 0)
    counts = [len(step.train) for step in steps]
    assert counts[0] == pytest.approx(150, abs=10) and counts[-1] == len(parts.train)
    assert all(b <= 3.2 * a for a, b in zip(counts, counts[1:], strict=False))
    for small, large in zip(steps, steps[1:], strict=False):
        assert {i.key for i in small.train} <= {i.key for i in large.train}
    assert len(steps[-1].asked) == len(parts.compare)


def test_who_comes_too_late_to_be_probed_says_so(tmp_path: Path) -> None:
    class Slow(Stands):
        def measure(self, entries, pictures, question, note):
            found = super().measure(entries, pictures, question, note)
            ms = {POOL[0]: 1.0, POOL[3]: 1.0}
            return {m: replace(cost, ms=ms.get(m, 1e6)) for m, cost in found.items()}

    state = ask(tmp_path / "c", Slow(NOISE))
    late = {e.model for e in state.entries if e.left == "not probed: the time was up"}
    assert late == set(POOL[1:3]) and state.phase == "done" and state.winner not in late


def test_a_heat_is_cut_to_the_time_that_is_left() -> None:
    heat = Heat(models=("a", "b", "c", "d"), seconds=50.0)
    right = {"a": "1111", "b": "1111", "c": "1000", "d": "0000"}
    entries = [
        ChoiceEntry(model=m, trials=(Trial(seconds=50.0, epochs=1, right=20 * r, run="x"),))
        for m, r in right.items()
    ]
    found = [race.next_heat(entries, heat, seconds) for seconds in (900.0, 140.0, 100.0)]
    assert found[:2] == [Heat(models=("a", "b"), seconds=each) for each in (100.0, 70.0)]
    assert found[2] is None


def test_heats_share_the_time() -> None:
    heat = first_heat(["a", "b", "c", "d"], 400.0)
    assert heat == Heat(models=("a", "b", "c", "d"), seconds=50.0)
    assert first_heat(["a", "b", "c", "d"], 90.0) == Heat(models=("a", "b"), seconds=45.0)
    assert first_heat(["a", "b"], 30.0) is None
    assert first_heat(["a"], 30.0) == Heat(models=("a",), seconds=30.0)
    entries = [ChoiceEntry(model=m, released=m != "z") for m in "abcdz"]
    done = [rounds.Round(train=9, right=r, neighbours=0, strength=1, seconds=1) for r in
            ("1111", "1110", "1100", "1000", "0000")]  # fmt: skip
    entries = [replace(e, rounds=(d,)) for e, d in zip(entries, done, strict=True)]
    assert seats(entries) == ["a", "b", "c", "z"]
    assert seats([replace(e, released=False) for e in entries]) == ["a", "b", "c", "d"]
    assert race.heats(4) == 2 and race.heats(1) == 1


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"data": ""}, "say what to choose for"),
        ({"minutes": 0.0}, "minutes must be above 0"),
        ({"minutes": float("nan")}, "minutes must be above 0"),
        ({"max_ms": -1.0}, "max_ms must be above 0"),
        ({"batch": 0}, "batch must be from 1"),
        ({"val": 1.5}, "validation share"),
        ({"seed": -1}, "seed"),
    ],
)
def test_wrong_questions_are_one_line(wrong: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Question(**{"data": "fashion"} | wrong)
