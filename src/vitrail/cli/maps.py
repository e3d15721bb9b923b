"""What ``vitrail explain RUN PICTURES`` does: explain every picture, draw, keep the raw maps."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitrail.attribution.base import DEFAULT, Explanation, explain, find_method, methods
from vitrail.attribution.preserve import ExplainError
from vitrail.attribution.targets import find_class
from vitrail.cli.command import Answer, as_json, table
from vitrail.cli.options import ExplainOptions
from vitrail.cli.pictures import find_pictures, picture_or_problem
from vitrail.cli.settings import changes_of
from vitrail.console import counting_bar, print_stderr
from vitrail.errors import UserError, unknown
from vitrail.files import (
    DatedFolder,
    Destination,
    atomic_file,
    new_folder,
    publish,
    refuse_occupied,
    resolve_path,
    write_text,
)

if TYPE_CHECKING:
    from PIL.Image import Image

    from vitrail.attribution.draw import Drawing, Pixels
    from vitrail.hub import Classifier

FOLDER = Path("explanations")
AGNOSTIC = "class-agnostic: where attention was spent, not why this class"


@dataclass(frozen=True)
class NamedRun:
    """A run under the name it has in files and sheets."""

    name: str
    run: "Classifier"
    place: str = ""


@dataclass(frozen=True, kw_only=True)
class PictureExplanation:
    """One explanation of one picture by one run; ``found`` is None where ``problem`` says why.

    ``label`` is the explained class, ``chance`` its probability.
    """

    of: NamedRun
    method: str
    found: Explanation | None
    label: str = ""
    chance: float | None = None
    problem: str = ""


def draw_explanations(options: ExplainOptions) -> Answer:
    """Explain and draw every picture.

    Raises:
        UserError: nothing to explain, an unknown method, option or class, a folder in use, or not
            one explanation that could be had.
    """
    paths = find_pictures(options.pictures)
    chosen = select_methods(options.method or (DEFAULT,))
    method_kwargs = method_options(options.set, chosen)
    runs = open_runs([options.folder, *options.beside])
    targets = {one.name: target_class(options.target, one.run) for one in runs}
    out = output_goal(options.out, runs[0].name)

    def explain_image(image: "Image") -> list[PictureExplanation]:
        return [
            explain_picture(
                one, image, name, targets[one.name], options.seed, method_kwargs.get(name, {})
            )
            for one in runs
            for name in chosen
        ]

    names = file_names(paths)
    with new_folder(out) as draft:
        rows = write_pictures(draft.path, names, explain_image)
        if not any("files" in row for row in rows):
            return answer(rows, None)
        folder = publish(draft, out, lambda folder: write_rows(draft.path, names, rows, folder))
    return answer(rows, folder)


def write_pictures(
    out: Path,
    names: Mapping[Path, str],
    explain_image: Callable[["Image"], list[PictureExplanation]],
) -> list[dict[str, Any]]:
    """Explain picture by picture and write each; a row each explanation, files by their names."""
    rows: list[dict[str, Any]] = []
    begun = False
    with counting_bar("explaining") as step:
        for i, path in enumerate(names):
            step(i, len(names))
            image, problem = picture_or_problem(path)
            if image is None:
                print_stderr(problem)
                rows.append({"picture": str(path), "problem": problem})
                continue
            explanations = explain_image(image)
            if not begun:
                refuse_if_none(explanations)
                begun = True
            rows += write_outputs(out, names[path], path, image, explanations)
    return rows


def write_rows(
    draft: Path, names: Mapping[Path, str], rows: Sequence[dict[str, Any]], folder: Path
) -> None:
    """One JSON for each picture; files stand there as in ``folder``, the draft's name to be."""
    by_picture: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if "files" in row:
            row["files"] = [str(folder / Path(name).name) for name in row["files"]]
        if "method" in row:
            by_picture.setdefault(row["picture"], []).append(row)
    for path, name in names.items():
        if str(path) in by_picture:
            write_text(draft / f"{name}.json", as_json(by_picture[str(path)]))


def explain_picture(
    one: NamedRun,
    image: "Image",
    name: str,
    target: int | None,
    seed: int,
    options: Mapping[str, Any],
) -> PictureExplanation:
    """One method's answer on one picture, or why there is none."""
    images = one.run.preprocess.transform()(image).unsqueeze(0)
    try:
        found = explain(one.run.model, images, name, target, seed=seed, **options)
    except ExplainError as error:
        return PictureExplanation(of=one, method=name, found=None, problem=str(error))
    if not isinstance(found.target, tuple):
        return PictureExplanation(of=one, method=name, found=found, label="no class")
    target = found.target[0]
    chance, label = float(one.run.predict([image])[0, target]), one.run.classes[target]
    return PictureExplanation(of=one, method=name, found=found, label=label, chance=chance)


def refuse_if_none(explanations: Sequence[PictureExplanation]) -> None:
    """Where no method serves at all, that is wrong input, and nothing is written."""
    if all(one.found is None for one in explanations):
        raise UserError(explanations[0].problem)


# ---- what was asked for -------------------------------------------------------------------------


def select_methods(names: Sequence[str]) -> list[str]:
    """Known names, each once; ``all`` is all of them."""
    if "all" in names:
        return list(methods())
    return list(dict.fromkeys(find_method(name).name for name in names))


def method_options(texts: Sequence[str], chosen: Sequence[str]) -> dict[str, dict[str, Any]]:
    """``["rise.masks=100"]`` -> ``{"rise": {"masks": 100}}``, for chosen methods only.

    Raises:
        UserError: another form, a method that was not chosen, an option it does not have.
    """
    given = changes_of(texts)
    for name, options in given.items():
        if not isinstance(options, Mapping):
            raise UserError(f"--set takes METHOD.KEY=VALUE, such as rise.masks=1000, not {name!r}")
        if name not in chosen:
            raise unknown("chosen method", name, chosen)
        find_method(name).options(options)
    return given


def open_runs(folders: Sequence[str]) -> list[NamedRun]:
    """The runs, under short names of their own."""
    from vitrail.hub import open_run

    names: list[str] = []
    for folder in folders:
        path = resolve_path(folder)
        name = file_stem(path.parent.name if path.is_file() else path.name)
        names.append(name if name not in names else f"{name}-{len(names) + 1}")
    pairs = zip(names, folders, strict=True)
    return [NamedRun(name, open_run(folder), str(folder)) for name, folder in pairs]


def target_class(text: str | None, run: "Classifier") -> int | None:
    """A class by name or number; None for the predicted one.

    Raises:
        UserError: the run has no such class.
    """
    return None if text is None else find_class(text, run.classes)


def output_goal(folder: Path | None, name: str) -> Destination:
    """The folder asked for if it is free, else a new one in ``explanations/``.

    Raises:
        UserError: the folder asked for holds something.
    """
    if folder is None:
        return DatedFolder(FOLDER, name)
    refuse_occupied(folder)
    return folder


def file_stem(text: str) -> str:
    """A text as part of a file's name."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-.") or "picture"


def file_names(paths: Sequence[Path]) -> dict[Path, str]:
    """A file name for each picture, numbered where stems repeat."""
    names: dict[Path, str] = {}
    used: set[str] = set()
    counts: Counter[str] = Counter()
    for path in paths:
        stem = name = file_stem(path.stem)
        while name in used:
            counts[stem] += 1
            name = f"{stem}-{counts[stem] + 1}"
        used.add(name)
        names[path] = name
    return names


# ---- what is kept -------------------------------------------------------------------------------


def write_outputs(
    out: Path, name: str, path: Path, image: "Image", explanations: Sequence[PictureExplanation]
) -> list[dict[str, Any]]:
    """Write what is drawn of one picture: pages, sheets, raw maps; a row each method and run."""
    from vitrail.attribution.draw import save, sheet

    several = len({one.of.name for one in explanations}) > 1
    rows = [row(one, path, several) for one in explanations]
    for one, line in zip(explanations, rows, strict=True):
        if one.found is None:
            print_stderr(f"{path}: {one.problem}")
            continue
        stem = f"{name}.{one.of.name}.{one.method}" if several else f"{name}.{one.method}"
        line["files"] = [file.name for file in pages(out, stem, one, image)]
    arrays = {
        k: v for one in explanations if one.found for k, v in raw_arrays(one, several).items()
    }
    write_arrays(out / f"{name}.npz", arrays)
    if len(explanations) > 1:
        by_run, columns = sheet_rows(explanations)
        save(
            sheet(model_view(image, explanations[0].of.run), by_run, columns),
            out / f"{name}.sheet.png",
        )
    return rows


def row(one: PictureExplanation, path: Path, several: bool) -> dict[str, Any]:
    """An explanation as data."""
    base = {"picture": str(path), "run": one.of.name, "method": one.method}
    if one.found is None:
        return base | {"problem": one.problem}
    found = one.found
    return base | {
        "target": one.label,
        "probability": None if one.chance is None else round(one.chance, 6),
        "score": None if found.score is None else round(float(found.score[0]), 6),
        "class_specific": found.class_specific,
        "signed": found.signed,
        "params": dict(found.params),
        "check": {k: float(v.flatten()[0]) for k, v in found.check.items()},
        "layers": {k: {"kind": v.kind, "grid": v.grid} for k, v in found.layers.items()},
        "seconds": round(found.seconds, 4),
    }


def pages(out: Path, stem: str, one: PictureExplanation, image: "Image") -> list[Path]:
    """The overlay's page, and the sheet of the layers where they have something to show."""
    from vitrail.attribution.draw import page, save
    from vitrail.attribution.segments import draw_layers, worth_drawing

    assert one.found is not None
    picture = model_view(image, one.of.run)
    files = [out / f"{stem}.png"]
    save(page(picture, drawing(one)), files[0])
    if worth_drawing(one.found.layers):
        files.append(out / f"{stem}.layers.png")
        save(draw_layers(picture, one.found.layers, 0, f"{one.method} of {one.of.name}"), files[1])
    return files


def drawing(one: PictureExplanation) -> "Drawing":
    """The map with its title."""
    from vitrail.attribution.draw import Drawing, as_array

    assert one.found is not None
    note = "" if one.found.class_specific else AGNOSTIC
    return Drawing(
        map=as_array(one.found.map[0]),
        signed=one.found.signed,
        title=f"{one.method} of {one.of.name}: {class_label(one)}",
        note=note,
    )


def class_label(one: PictureExplanation) -> str:
    """The explained class and how sure the model is of it."""
    return one.label if one.chance is None else f"{one.label} {one.chance:.0%}"


def sheet_rows(
    explanations: Sequence[PictureExplanation],
) -> "tuple[dict[str, list[Drawing | None]], list[str]]":
    """Drawings by run, and the methods that head the columns."""
    from dataclasses import replace

    by_run: dict[str, list[Drawing | None]] = {}
    for one in explanations:
        made = None if one.found is None else replace(drawing(one), title=class_label(one))
        by_run.setdefault(one.of.name, []).append(made)
    return by_run, list(dict.fromkeys(one.method for one in explanations))


def model_view(image: "Image", run: "Classifier") -> "Pixels":
    """The picture as the model sees it: resized and cropped, ``(H, W, 3)``."""
    import numpy as np

    pixels = run.preprocess.transform().prepare(image)
    return np.repeat(pixels, 3, -1) if pixels.shape[-1] == 1 else pixels


def raw_arrays(one: PictureExplanation, several: bool) -> dict[str, Any]:
    """Arrays by name: ``METHOD/map``, ``METHOD/native``, ``METHOD/layers/LAYER/TENSOR``."""
    from vitrail.attribution.draw import as_array

    assert one.found is not None
    stem = f"{one.of.name}/{one.method}" if several else one.method
    layers = {
        f"{stem}/layers/{layer}/{name}": as_array(tensor[0])
        for layer, record in one.found.layers.items()
        for name, tensor in record.tensors.items()
    }
    maps = {"map": one.found.map, "native": one.found.native}
    return {f"{stem}/{name}": as_array(maps_[0]) for name, maps_ in maps.items()} | layers


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """An .npz, whole or not at all."""
    import numpy as np

    with atomic_file(path) as draft, draft.open("wb") as file:
        np.savez_compressed(file, **arrays)


def answer(rows: Sequence[dict[str, Any]], out: Path | None) -> Answer:
    """What was written, and what could not be."""
    good = [line for line in rows if "problem" not in line]
    shown = [
        (line["picture"], line["run"], line["method"], line["target"], f"{line['seconds']:.2f}")
        for line in good
    ]
    failed = len(rows) - len(good)
    tail = [f"{failed} of {len(rows)} explanations could not be had"] if failed else []
    where = [f"written to {out}"] if good else []
    head = ("picture", "run", "method", "explained", "s")
    parts = [*([table(head, shown, left=4)] if shown else []), *tail, *where]
    return Answer({"out": out and str(out), "rows": list(rows)}, parts, status=1 if failed else 0)
