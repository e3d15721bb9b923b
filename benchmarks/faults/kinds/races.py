"""Two or three of the same command at once: on one folder, and on the folder that nobody named."""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.faults import children
from benchmarks.faults.kinds.victims import LIMIT_S, VICTIMS, Victim, lay_out, nothing_left
from benchmarks.faults.trial import Kind, Trial
from benchmarks.faults.verdict import Fault, Said, judge

NAMED = {victim.name: victim for victim in VICTIMS}
MAY_SHARE = ("cost",)
"""One file, written whole: the last one stays."""
GOES_ON = ("study", "choose")
"""A later one finds the answer of the first and says it."""


def together(place: Path, commands: list[list[Any]]) -> list[Said]:
    """Run commands beside each other to their ends."""
    begun = [children.spawn(words, place) for words in commands]
    return [judge(child.told(LIMIT_S)) for child in begun]


def same_folder(trial: Trial, victim: Victim) -> None:
    """All write to one name: one does, the others are told; what is there is whole."""
    victim.undisturbed(trial.stage)
    place = lay_out(trial.folder / "work")
    out = place / victim.out
    victim.prepare(trial.stage, out)
    count = trial.chance.choice((2, 2, 3))
    said = together(place, [list(victim.words(trial.stage, out)) for _ in range(count)])
    won = [one for one in said if one.status == 0]
    if victim.name not in (*MAY_SHARE, *GOES_ON) and len(won) != 1:
        raise Fault(f"{len(won)} of {count} wrote one folder", "\n".join(s.tail() for s in said))
    if not won:
        raise Fault("nobody wrote the folder", "\n".join(s.tail() for s in said))
    if victim.name == "cost" and trial.chance.random() < 0.5:
        return
    victim.same(trial.stage, out, won[0])
    nothing_left(place)


def own_folders(trial: Trial, victim: Victim, parent: str) -> None:
    """Nobody names a folder: each gets its own, whole."""
    victim.undisturbed(trial.stage)
    place = lay_out(trial.folder / "work")
    words = list(victim.words(trial.stage, place / "out"))
    at = words.index("--out")
    del words[at : at + 2]
    count = trial.chance.choice((2, 2, 3))
    said = together(place, [words] * count)
    if any(one.status != 0 for one in said):
        raise Fault("one of several fails", "\n".join(s.tail() for s in said))
    made = [p for p in (place / parent).iterdir() if not p.name.startswith(".")]
    if len(made) != count:
        raise Fault(f"{count} commands made {len(made)} folders", "\n".join(s.tail() for s in said))
    for out in made:
        victim.same(trial.stage, out, said[0])
    nothing_left(place)


def refused_study(trial: Trial) -> None:
    """A second study with another plan in the folder of the first leaves the first as it was."""
    place = lay_out(trial.folder / "work")
    out = place / "out"
    shutil.copytree(trial.stage.of("study"), out)
    before = {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()}
    words = NAMED["study"].words(trial.stage, out)
    changed = [w if w != "1" else "0.5" for w in map(str, words)]
    odd = trial.chance.choice((["--seeds", "-1"], ["--image", "64"], ["--epochs", "3"]))
    said = judge(children.finish([*changed, *odd], place, LIMIT_S))
    after = {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()}
    if said.status == 2 and before != after:
        names = [name for name in after if before.get(name) != after[name]]
        raise Fault("a refused study changed files of another", f"{names}\n{said.tail()}")


def kinds() -> list[Kind]:
    """A race for every victim."""
    made = []
    for victim in VICTIMS:
        made.append(
            Kind(
                name=f"race-{victim.name}", about="at once on one folder", machine=True,
                attempt=partial(same_folder, victim=victim), needs=victim.needs, weight=0.7,
                seconds=200,
            )
        )  # fmt: skip
    for name, parent in (("train", "runs"), ("explain", "explanations")):
        made.append(
            Kind(
                name=f"race-own-{name}", about="at once, no folder named", machine=True,
                attempt=partial(own_folders, victim=NAMED[name], parent=parent),
                needs=NAMED[name].needs, weight=0.7, seconds=200,
            )
        )  # fmt: skip
    refused = Kind(
        name="refused-study", about="a second plan leaves the first study alone", machine=True,
        attempt=refused_study, needs=("study",), weight=0.3, seconds=200,
    )  # fmt: skip
    return [*made, refused]


KINDS = tuple(kinds())
