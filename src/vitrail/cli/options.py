"""The options of commands whose work stands in several files, for all of these to read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from vitrail.cli.command import FLAG, Command, metavar


@dataclass(kw_only=True)
class CostOptions(Command):
    """What ``vitrail cost`` measures, and under which conditions."""

    models: Positional[Annotated[tuple[str, ...], metavar("MODEL ...")]] = ()
    """Names, with options if wanted: "vit_tiny(patch=8)", timm:resnet18, official:cmt_s; a run."""
    image: Annotated[tuple[int, ...], metavar("N ...")] = ()
    """Sizes in pixels (default: 224)."""
    batch: Annotated[tuple[int, ...], metavar("N ...")] = ()
    """Batch sizes for throughput and memory; latency is of one picture (default: 8)."""
    threads: Annotated[tuple[int, ...], metavar("N ...")] = ()
    """Numbers of threads (default: as torch has it)."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format; other than float32 runs under autocast."""
    compiled: Annotated[bool, FLAG] = False
    """Time torch.compile's result instead of the plain model."""
    device: str = "auto"
    """cpu, cuda, ... (auto: the GPU where there is one)."""
    classes: int = 1000
    """Classes of the head."""
    rounds: int = 6
    """Timed windows of each model."""
    window: float = 0.3
    """Length of a window in seconds."""
    no_memory: Annotated[bool, FLAG] = False
    """Leave out peak memory (it takes two fresh processes for each row)."""
    growth: Annotated[Path | None, metavar("PICTURE")] = None
    """Fit how cost grows over the sizes of --image, and draw it: .svg, .png or .pdf."""
    by_layer: Annotated[bool, FLAG] = False
    """Where the time goes: time, multiply-adds, memory traffic and share of each layer."""
    depth: Annotated[int | None, metavar("N")] = None
    """With --by-layer: how deep rows go (default: stage, block and part)."""
    roofline: Annotated[Path | None, metavar("PICTURE")] = None
    """Measure this machine's ceilings, and draw how near each model (or layer) comes."""
    against: Annotated[str | None, metavar("ARM")] = None
    """timm or official (each model's counterpart, same weights, logits compared), or any model."""
    train_step: Annotated[bool, FLAG] = False
    """With --against: compare training steps: forward, backward, optimiser, memory a picture."""
    checkpointing: Annotated[bool, FLAG] = False
    """With --train-step: compute activations again instead of keeping them."""


@dataclass(kw_only=True)
class ExplainOptions(Command):
    """What ``vitrail explain`` draws or scores."""

    folder: Positional[Annotated[str, arg(metavar="RUN")]]
    """A run folder, a .safetensors file of one, or timm:NAME."""
    pictures: Positional[Annotated[tuple[str, ...], metavar("PICTURES ...")]] = ()
    """Files, folders (searched through) and patterns such as "new/**/*.png"."""
    method: Annotated[tuple[str, ...], metavar("NAME ...")] = ()
    """Methods, or all (default: occlusion; with --score all)."""
    beside: Annotated[tuple[str, ...], metavar("RUN ...")] = ()
    """More runs: also draws a sheet of methods by models for each picture."""
    target: Annotated[str | None, metavar("CLASS")] = None
    """The class to explain, by name or number (default: the predicted one)."""
    set: Annotated[tuple[str, ...], metavar("METHOD.KEY=VALUE ...")] = ()
    """Options of methods: --set rise.masks=1000 occlusion.window=24."""
    score: Annotated[str | None, metavar("DATA")] = None
    """Score on this set: as for training, or a folder with images/ and masks/ or boxes.csv."""
    part: Annotated[str | None, metavar("PART")] = None
    """Part of DATA to score on: train, val, test or all (default: test, else val)."""
    count: int = 64
    """Pictures to score on, all answered rightly."""
    steps: int = 56
    """Steps of insertion and deletion."""
    seed: int = 0
    """Of methods that draw, and of the choice of pictures."""
    out: Annotated[Path | None, arg(aliases=["-o"], metavar="FOLDER", help_behavior_hint="")] = None
    """A folder that is empty or not there yet (default: explanations/NAME-DATE)."""


@dataclass(kw_only=True)
class TrainOptions(Command):
    """What ``vitrail train`` trains, and from where."""

    data: Positional[Annotated[str, metavar("DATA")]] = ""
    """Folder of class folders, CSV or Parquet table, zip, torchvision:NAME, fashion or scenes."""
    model: str = "coat_lite_tiny"
    """A name of 'vitrail models', with options if wanted, or timm:NAME."""
    mixer: Annotated[tuple[str, ...], metavar("MIXER ...")] = ()
    """Another way for tokens to meet: one for all stages, or one each (native: as in the paper)."""
    reducer: Annotated[tuple[str, ...], metavar("REDUCER ...")] = ()
    """Which tokens work: one for all stages, or one each."""
    image: Annotated[int | None, metavar("N")] = None
    """Size in pixels that the model sees (default: the weights', else from the pictures)."""
    epochs: Annotated[int | None, metavar("N")] = None
    """Passes through the pictures (default: the recipe's)."""
    fraction: float = 1.0
    """Share of the training pictures, the same in every class."""
    seed: int = 0
    """Seed of the split, the fraction and the training."""
    val: float = 0.2
    """Share kept for validation where the set has no split of its own."""
    copies: Annotated[bool, FLAG] = False
    """Count copies of a training picture as often as they are there (for rare classes)."""
    weights: Annotated[str | None, metavar("WORD")] = None
    """none, auto (released ones if they can be had), timm[:NAME], OWNER/NAME, a file or a run."""
    weights_folder: Annotated[Path | None, metavar("FOLDER")] = None
    """Released weights without a network: files named by timm's tag (default: VITRAIL_WEIGHTS)."""
    from_: Annotated[Path | None, arg(name="from", metavar="RUN", help_behavior_hint="")] = None
    """Start from a trained run: its model (--reducer may differ), weights, size and pictures."""
    tune: Annotated[str | None, metavar("all|head|last:N")] = None
    """What is trained: all (default), the head, or the last N layers and the head."""
    teacher: Annotated[str | None, metavar("RUN|timm:NAME")] = None
    """Learn from a trained model too: a run folder, or timm's with its released weights."""
    distill: Annotated[Literal["hard", "soft"] | None, metavar("hard|soft")] = None
    """How the teacher is heard: its best class (hard, default) or all its probabilities."""
    alpha: Annotated[float | None, metavar("0..1")] = None
    """What the teacher's word weighs beside the label (default: hard 0.5, soft 0.1)."""
    temperature: Annotated[float | None, metavar("T")] = None
    """Softens the probabilities of teacher and student (default 3, soft only)."""
    recipe: Annotated[Path | None, metavar("FILE.yaml")] = None
    """A recipe in YAML; every run folder holds the one it used."""
    set: Annotated[tuple[str, ...], metavar("KEY=VALUE ...")] = ()
    """Change single values of the recipe: --set lr=0.001 batch=64."""
    out: Annotated[Path | None, metavar("FOLDER")] = None
    """Run folder to make (default: runs/NAME-DATE; nothing is overwritten)."""
    strict: Annotated[bool, FLAG] = False
    """Stop at broken pictures instead of leaving them out."""
    resume: Annotated[Path | None, metavar("RUN")] = None
    """Go on with a run that was stopped; takes only --set of what changes no result (workers)."""
