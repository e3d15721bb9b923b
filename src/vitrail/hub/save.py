"""Trained models as folders that timm, transformers and Vitrail open, here or on the hub.

::

    model.safetensors   weights, with Vitrail's card (class names, preprocessing) in its metadata
    config.json         as timm writes it, without the word that keeps transformers from reading it
    README.md           the model card: data, recipe, results, cost

In another process ``import vitrail.timm`` must come first: timm has no plug-ins.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from vitrail import schema
from vitrail.errors import UserError
from vitrail.files import draft_folder, refuse_occupied, write_error, write_text
from vitrail.hub.fetch import FILES
from vitrail.hub.locate import run_of
from vitrail.hub.modelcard import card_text
from vitrail.hub.runs import Classifier, load, open_run

if TYPE_CHECKING:
    from torch import nn

    from vitrail.data import Preprocess
    from vitrail.tasks.card import Card

FACTS = ("run.json", "result.json")


@dataclass(frozen=True)
class PreparedModel:
    """A model with all that its folder shall say; no ``labels`` where nobody named classes."""

    model: "nn.Module"
    card: "Card"
    labels: tuple[str, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)


def save_timm(
    source: "nn.Module | Classifier | str | Path",
    folder: str | Path,
    *,
    labels: Sequence[str] = (),
    preprocess: "Preprocess | None" = None,
    licence: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a folder that ``timm.create_model("local-dir:...")`` and transformers load.

    Args:
        source: a run folder, an opened run, or a backbone.
        folder: new or empty, unless ``overwrite``.
        labels: class names in the order of the logits; a run has its own.
        preprocess: how pictures become inputs; a run has its own.
        licence: of these weights, for the model card; nothing is said without it.
        overwrite: replace the three files where they are.

    Raises:
        UserError: the folder holds something, or ``source`` is no model of Vitrail's or timm's.
    """
    from vitrail.tasks.card import save_weights

    folder = Path(folder)
    if not overwrite:
        refuse_occupied(folder)
    ready = prepare(source, labels, preprocess)
    model = as_timm(ready.model)
    with draft_folder(folder) as draft:
        save_weights(draft.path / FILES[0], model.state_dict(), ready.card)
        write_text(draft.path / "config.json", json.dumps(config_of(model, ready), indent=2))
        write_text(draft.path / "README.md", card_text(ready.card, model, ready.facts, licence))
        if not overwrite:
            draft.publish(folder)
        elif not draft.claim(folder):
            move_files(draft.path, folder)
    return folder


def move_files(draft: Path, folder: Path) -> None:
    """Move what ``save_timm`` writes into a folder that is there, over its old files.

    The config goes first and comes last: after a kill in between there is none, which timm
    refuses, and never one beside the weights of another model.
    """
    try:
        (folder / "config.json").unlink(missing_ok=True)
    except OSError as error:
        raise write_error(folder / "config.json", error) from error
    for name in (FILES[0], "README.md", "config.json"):
        try:
            (draft / name).replace(folder / name)
        except OSError as error:
            raise write_error(folder / name, error) from error


def push_to_hub(
    source: "nn.Module | Classifier | str | Path",
    repository: str,
    *,
    private: bool = False,
    overwrite: bool = False,
    **options: Any,
) -> str:
    """:func:`save_timm` into a repository ``owner/name`` on the hub; gives its address.

    Raises:
        UserError: the repository has weights already, is not yours, or the net is away.
    """
    from huggingface_hub import HfApi

    api = HfApi(library_name="vitrail")
    with TemporaryDirectory() as draft:
        save_timm(source, draft, **options)
        try:
            api.create_repo(repository, private=private, exist_ok=True)
            if not overwrite and api.file_exists(repository, FILES[0]):
                raise UserError(f"{repository} has weights already; overwrite=True replaces them")
            api.upload_folder(
                repo_id=repository, folder_path=draft, commit_message="Model from Vitrail"
            )
        except OSError as error:
            why = " ".join(str(error).split())[:160]
            raise UserError(
                f"cannot write to {repository!r} on the hub ({why}); log in with 'hf auth login', "
                "and look at the name and the connection"
            ) from error
    return f"{api.endpoint}/{repository}"


def from_pretrained(source: str | Path) -> Classifier:
    """A folder of :func:`save_timm`'s, or such a repository ``owner/name[@revision]``.

    Raises:
        UserError: nothing there, no Vitrail card in the weights, or the net is away.
    """
    return load(source)


def prepare(
    source: "nn.Module | Classifier | str | Path",
    labels: Sequence[str],
    preprocess: "Preprocess | None",
) -> PreparedModel:
    """Whatever was given, as model, card, class names and facts."""
    if isinstance(source, str | Path):
        facts = {name: read_json(run_of(Path(source)) / name) for name in FACTS}
        return replace(prepare(open_run(source), labels, preprocess), facts=facts)
    if isinstance(source, Classifier):
        names = tuple(labels) or source.classes
        card = replace(source.card, classes=names)
        if preprocess:
            card = replace(card, preprocess=preprocess.to_dict())
        return PreparedModel(source.model, card, names)
    card = card_of(source, tuple(labels), preprocess)
    return PreparedModel(source, card, tuple(labels))


def card_of(model: "nn.Module", labels: tuple[str, ...], preprocess: "Preprocess | None") -> "Card":
    """The card of a bare backbone.

    Raises:
        UserError: not a backbone of ours, or labels that do not fit its logits.
    """
    from vitrail.data import Preprocess
    from vitrail.models import Backbone
    from vitrail.models.backbone import image_hw
    from vitrail.models.zoo import text_of
    from vitrail.tasks.card import Card

    if not isinstance(model, Backbone):
        raise UserError(f"{type(model).__name__} is no Vitrail backbone; timm saves its own models")
    if labels and len(labels) != model.classes:
        raise UserError(f"{len(labels)} labels for a model of {model.classes} classes")
    image = max(image_hw(model.config.image))
    seen = preprocess or Preprocess(image=image, in_chans=model.in_chans)
    return Card(
        model=text_of(model),
        classes=labels or tuple(str(i) for i in range(model.classes)),
        image=image,
        in_chans=model.in_chans,
        preprocess=seen.to_dict(),
    )


def as_timm(model: "nn.Module") -> "nn.Module":
    """The same weights under timm's contract; timm's own models are what they are."""
    from vitrail.models import Backbone

    if not isinstance(model, Backbone):
        return model
    import timm

    from vitrail.hub.timm_adapter import PREFIX, TimmAdapter, register
    from vitrail.models.backbone import image_hw
    from vitrail.models.zoo import changes, entry, name_of

    if isinstance(model, TimmAdapter):
        return model
    register()
    name = name_of(model)
    made: nn.Module = timm.create_model(
        f"{PREFIX}{name}",
        num_classes=model.classes,
        in_chans=model.in_chans,
        img_size=image_hw(model.config.image),
        **changes(entry(name).config, model.config),
    )
    made.load_state_dict(model.state_dict())
    return made.train(model.training)


def config_of(model: "nn.Module", ready: PreparedModel) -> dict[str, Any]:
    """timm's ``config.json``, readable by transformers too.

    timm 1.0.31 writes ``num_classes`` among the model's arguments, transformers 5.23 gives it a
    second time and fails; the word at the top of the file serves both.
    """
    from timm.models._hub import save_config_for_hf

    from vitrail import __version__

    seen = ready.card.preprocess
    data = {
        "input_size": (ready.card.in_chans, *[int(seen["image"])] * 2),
        "mean": tuple(seen["mean"]),
        "std": tuple(seen["std"]),
        "crop_pct": seen["crop"],
        "interpolation": seen["interpolation"],
    }
    named = {"label_names": list(ready.labels)} if ready.labels else {}
    with TemporaryDirectory() as draft:
        path = Path(draft) / "config.json"
        save_config_for_hf(model, str(path), model_config=named, data_config=data)
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    config.get("model_args", {}).pop("num_classes", None)
    return config | {"vitrail": {"version": __version__, "before_loading": "import vitrail.timm"}}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file, empty where there is none."""
    found: dict[str, Any] = schema.read_json(path, dict[str, Any]) if path.is_file() else {}
    return found
