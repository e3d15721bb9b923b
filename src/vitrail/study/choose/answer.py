"""The answer: a table, one page, and the command that trains what was chosen.

state -> rows (accuracy with interval, cost, Pareto front) -> table for a terminal -> choose.html
"""

from pathlib import Path
from typing import Any

import numpy as np

from vitrail.errors import printable, shell_path, shell_word
from vitrail.files import write_text
from vitrail.study import stats
from vitrail.study.choose.halving import rank, rank_correlation
from vitrail.study.choose.lines import Line, lines_of
from vitrail.study.choose.state import ChoiceState, as_array, share_right

PAGE = "choose.html"


def command(state: ChoiceState) -> str:
    """What trains the chosen one."""
    data, winner = str(state.question["data"]), state.entry(state.winner)
    weights = winner.weights if winner.released else "none"
    words = ["--model", winner.model, "--weights", weights]
    folder = state.question.get("weights_folder")
    words += ["--weights-folder", str(folder)] if folder and winner.released else []
    return " ".join(["vitrail", "train", shell_path(data), *map(shell_word, words)])


def sentences(state: ChoiceState) -> list[str]:
    """What was found, in plain words, for people."""
    if not state.winner and not state.open:
        return ["No candidate is left in question; the table says why."]
    if not state.winner:
        return ["Nothing is known yet: give the same command again to go on."]
    winner = state.entry(state.winner)
    found = [
        f"{state.winner} ({winner.start or 'start not known'}) is the choice for these pictures."
    ]
    if state.estimate is not None:
        one = stats.wilson(state.estimate.right, state.estimate.count)
        how = (
            f"after {winner.trials[-1].seconds:.0f} s of fine-tuning"
            if state.estimate.tuned
            else "as a linear head upon frozen features"
        )
        found.append(
            f"Estimated accuracy {one.value:.1%} ({one.low:.1%} to {one.high:.1%}) {how}, on "
            f"{one.count} pictures that nothing was chosen by; longer training usually adds to it."
        )
    else:
        found.append("It was stopped early: this is the best so far; the same command goes on.")
    found += [sentence for sentence in (apart(state), sure(state), curse(state)) if sentence]
    return found


def apart(state: ChoiceState) -> str:
    """Which candidates cannot be told from the chosen one."""
    raced = state.entry(state.winner).trials
    rivals = {
        entry.model: as_array(trial.right)
        for entry in state.entries
        for trial in entry.trials
        if raced and trial.seconds == raced[-1].seconds
    } or last_probes(state)
    alike = [s.name for s in rank(rivals) if s.stays and s.name != state.winner] if rivals else []
    if not alike:
        return "Every other candidate was clearly behind when it left."
    return f"Not to be told apart from it: {', '.join(alike)}; take the cheaper."


def last_probes(state: ChoiceState) -> dict[str, Any]:
    """The answers of those that were probed on as many pictures as the winner."""
    rounds = state.entry(state.winner).rounds
    return {
        entry.model: as_array(done.right)
        for entry in state.entries
        for done in entry.rounds
        if rounds and done.train == rounds[-1].train
    }


def sure(state: ChoiceState) -> str:
    """How far probing foretold fine-tuning, where both are known."""
    probed = {e.model: share_right(e.rounds[-1].right) for e in state.entries if e.rounds}
    tuned = {e.model: share_right(e.trials[-1].right) for e in state.entries if e.trials}
    value = rank_correlation(probed, tuned)
    if np.isnan(value):
        return ""
    return f"Probes and fine-tuning agree with a rank correlation of {value:.2f} over {len(tuned)}."


def curse(state: ChoiceState) -> str:
    """The winner's curse, in figures."""
    winner = state.entry(state.winner)
    if state.estimate is None or not (winner.trials or winner.rounds):
        return ""
    seen = share_right((winner.trials if state.estimate.tuned else winner.rounds)[-1].right)
    fresh = state.estimate.right / state.estimate.count
    return (
        f"On the pictures it was chosen by it has {seen:.1%}; the best of many looks better "
        f"than it is there (the winner's curse), so expect {fresh:.1%}, the estimate."
    )


def table(state: ChoiceState) -> str:
    """For a terminal."""
    from vitrail.console import make_table, render

    columns = ("candidate", "start", "probe", "tuned", "ms", "MB", "parameters", "")
    rows = [[printable(cell) for cell in cells(line)] for line in lines_of(state)]
    return render(make_table(columns, rows, left=2))


def cells(line: Line) -> list[str]:
    """One row's texts; an asterisk marks the Pareto front."""
    cost = line.entry.cost
    priced = (
        [f"{cost.ms:.3g}", f"{cost.megabytes:.3g}", f"{cost.params / 1e6:.3g} M"]
        if cost
        else ["–"] * 3
    )
    name = line.entry.model + (" *" if line.front else "")
    return [
        name,
        line.entry.start or "–",
        percent(line.probe),
        percent(line.tuned),
        *priced,
        line.status,
    ]


def percent(found: stats.Interval | None) -> str:
    """``87.6 % (84.1 to 90.4)``; a dash for None."""
    if found is None:
        return "–"
    return f"{100 * found.value:.1f} % ({100 * found.low:.1f} to {100 * found.high:.1f})"


def write_page(state: ChoiceState, folder: Path) -> Path:
    """``choose.html``: one page that needs nothing but a browser."""
    from vitrail.study.banner import draw_banner
    from vitrail.study.choose.figure import pareto_figure
    from vitrail.study.plan import digest
    from vitrail.study.report import templates

    lines = lines_of(state)
    page = (
        templates()
        .get_template("choose.html")
        .render(
            state=state,
            lines=lines,
            sentences=sentences(state),
            command=command(state) if state.winner else "",
            figure=pareto_figure(lines, state.winner),
            glass=draw_banner(digest(state.question)),
            percent=percent,
        )
    )
    write_text(folder / PAGE, page)
    return folder / PAGE
