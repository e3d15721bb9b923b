"""Wrong input: exit status 2, one line that says what and what to do, no traceback."""

import os
from pathlib import Path

import pytest
from PIL import Image
from tests.cli.conftest import TINY

WRONG = {
    "trian photos": "no command 'trian'; close: train",
    "train fashion --epoch 3": "no option for 'vitrail train' '--epoch'; close: --epochs",
    "train": "say what to train on: vitrail train photos/ (or fashion, to try it)",
    "train a b": "not understood: b",
    "train fashion --epochs ten": "--epochs takes a number, not 'ten'",
    "train fashion --out": "Missing value for argument '--out'",
    "train nowhere": "nowhere",
    "train fashion --model coat_lite_tinny": "no model 'coat_lite_tinny'; did you mean coat",
    "train fashion --model timm:resnet81": "no timm model 'resnet81'; close: ",
    "train fashion --mixer sofmax": "no mixer 'sofmax'",
    "train fashion --reducer pol": "no reducer 'pol'",
    "train fashion --model timm:resnet18 --mixer softmax": "mixer works with our models only",
    "train fashion --set lrr=1": "no recipe key 'lrr'; close: lr",
    "train fashion --set lr": "--set takes KEY=VALUE, such as lr=0.001, not 'lr'",
    "train fashion --set lr=fast": "lr must be float, not str 'fast'",
    "train fashion --fraction 0": "a data share must be above 0",
    "train fashion --image 0": "the image size must be 1 or more, not 0",
    "train fashion --recipe none.yaml": "cannot read recipe 'none.yaml': No such file",
    "train fashion --weights none.pth": "no weight file at",
    "train fashion --alpha 0.3": "say how a teacher is heard: give one with --teacher RUN",
    "train fashion --teacher nowhere": "/nowhere'; give a run folder",
    "train fashion --teacher timm:resnet18": "knows 1000 classes, these pictures have 10",
    "train fashion --distill warm": "invalid choice 'warm' for argument '--distill'",
    "train --resume nowhere": "'nowhere' is not a run folder",
    "study": "say what to compare on",
    "study fashion --budget money": "invalid choice 'money' for argument '--budget'",
    "study fashion --budget seconds": "seconds go with the budget 'seconds'",
    "study fashion --fractions 10": "a fraction must be above 0",
    "study fashion --models vit_tiny vit_tiny": "arms name vit_tiny twice",
    "check nowhere": "nowhere",
    "predict": "Missing from vitrail predict: RUN",
    "predict nowhere": "name at least one picture, folder or pattern",
    "predict nowhere a.png": "no picture 'a.png'",
    "cost": "name at least one model",
    "cost vit_tiny --precision fp8": "invalid choice 'fp8' for argument '--precision'",
    "cost vit_tiny --batch 0": "batch must be 1 or more, not 0",
    "cost vit_tiny --batch 100000000": "pictures of 224 x 224 pixels at once take",
    "cost vit_tiny --image 100000": "the image size must be at most 65536",
    "cost vit_tiny --device [x]": "no device '[x]' here",
    "cost vit_tiny --threads 0": "threads must be 1 or more, not 0",
    "cost vit_tiny --classes -1": "classes must be 0 or more, not -1",
    "cost vit_tiny --window nan": "must be 0 to 100000 seconds, not nan",
    "check ~nope": "~nope",
    "train fashion --image 100000": "the image size must be at most 65536",
    "train fashion --seed 99999999999999999999": "the seed must be a whole number from 0",
    "train fashion --fraction nan": "a data share must be above 0",
    "train fashion --recipe .": "cannot read recipe '.'",
    "study fashion --seeds -1": "a seed must be a whole number from 0",
    "study fashion --models vit_tiny --set teacher=nowhere": "no teacher at",
    "study fashion --set optimizer=nope": "no optimizer 'nope'",
    "study fashion --fractions nan": "a fraction must be above 0",
    "models resnet": "no model 'resnet'",
    "completion tcsh": "say one shell: vitrail completion bash|zsh|fish",
}


@pytest.mark.parametrize("words", WRONG)
def test_one_line_and_status_2(words: str, give) -> None:
    said = give(*words.split())
    assert said.status == 2
    assert WRONG[words] in said.line


def test_a_model_text_with_a_missing_bracket(give) -> None:
    said = give("train", "fashion", "--model", "vit_tiny(patch=8")
    assert said.status == 2
    assert "is not of the form name or name(option=value)" in said.line


def test_nothing_is_overwritten(give) -> None:
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("mine")
    said = give("train", "fashion", "--out", "mine")
    assert said.status == 2
    assert "'mine' is there already and nothing is overwritten" in said.line
    assert Path("mine/notes.txt").read_text() == "mine"
    for command in ("train fashion", "study fashion --models vit_tiny", "choose fashion"):
        said = give(*command.split(), "--out", "mine/notes.txt")
        assert said.status == 2 and "(a file, not a folder)" in said.line, command


def test_debug_shows_the_traceback(give) -> None:
    said = give("--debug", "models", "resnet")
    assert said.status == 2
    assert "Traceback" in said.err
    assert said.err.splitlines()[-1].startswith("vitrail: no model 'resnet'")


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, and two pictures that cannot be opened: a training has something to note."""
    folder = tmp_path_factory.mktemp("odd")
    for name in ("cat", "dog"):
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (32, 32), (60 * i, 99 * (name == "dog"), 9)).save(
                folder / "photos" / name / f"{i}.png"
            )
        (folder / "photos" / name / "empty.png").touch()
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "fifo")
    return folder


@pytest.mark.parametrize(
    ("words", "said"),
    {
        "--set optimizer=nope": "no optimizer 'nope'",
        "--set optimizer=adahessian": "needs second derivatives",
        "--set class_weights=[1,2,3]": "class_weights has 3 numbers",
        "--set distill.kind=soft": "give one with --teacher",
        "--set lr=-1": "lr must lie between",
        "--model nope": "no model 'nope'",
        "--weights loop": "no weight file at",
        "--weights fifo": "no weight file at",
        "--recipe fifo": "not a regular file",
        "--plugin loop": "no plugin",
        "--plugin fifo": "not a regular file",
        "--out fifo/x": "fifo/x",
        "--out n\udcff": "is not a name in UTF-8",
    }.items(),
)
def test_an_error_is_one_line_whatever_else_was_noted(give, odd: Path, words, said) -> None:
    os.chdir(odd)
    model = () if "--model" in words else ("--model", TINY)
    out = () if "--out" in words else ("--out", "run")
    answer = give("train", "photos", *model, *out, "--image", "32", *words.split())
    assert answer.status == 2 and said in answer.line
    assert not (odd / "run").exists()
