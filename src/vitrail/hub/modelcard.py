"""The model card: what a stranger must know before using the weights, written from the run."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vitrail.hub.baselines import TIMM
from vitrail.hub.origin import Origin

if TYPE_CHECKING:
    from torch import nn

    from vitrail.tasks.card import Card

MOST_CLASSES = 50


def card_text(
    card: "Card", model: "nn.Module", facts: Mapping[str, Any], licence: str | None
) -> str:
    """``README.md``: a YAML head for the hub, then data, results, cost and how to load it.

    What the run does not say is not said: a bare backbone has neither data nor results.
    """
    run, result = facts.get("run.json") or {}, facts.get("result.json") or {}
    sections = (
        ("", f"{len(card.classes)} classes; {'trained' if run else 'saved'} with Vitrail."),
        ("Use", use(card)),
        ("Classes", classes(card.classes)),
        ("Data", data(run)),
        ("Start", describe_start(card)),
        ("Results", results(result.get("scores", {}))),
        ("Cost", cost(card, model, result)),
    )
    body = [f"## {title}\n\n{text}" if title else text for title, text in sections if text]
    return "\n\n".join([head(card, run, licence), f"# {card.model}", *body]) + "\n"


def head(card: "Card", run: Mapping[str, Any], licence: str | None) -> str:
    """The YAML that the hub reads."""
    import yaml

    facts: dict[str, Any] = {
        "library_name": "timm",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "vitrail", "timm", "transformers"],
        "metrics": ["accuracy"] if run else None,
        "license": licence,
    }
    said = {key: value for key, value in facts.items() if value}
    return f"---\n{yaml.safe_dump(said, sort_keys=False)}---"


def use(card: "Card") -> str:
    """Three ways to load it; ours is the shortest and brings the preprocessing."""
    ours = "" if card.model.startswith(TIMM) else "import vitrail.timm  # registers the model\n"
    return f"""```python
import vitrail.hub

classifier = vitrail.hub.from_pretrained("FOLDER OR owner/name")
probabilities = classifier.predict([picture])  # PIL pictures, of any size
```

```python
import timm
{ours}
model = timm.create_model("local-dir:FOLDER", pretrained=True)  # or hf-hub:owner/name
```

```python
import transformers
{ours}
model = transformers.AutoModelForImageClassification.from_pretrained("FOLDER OR owner/name")
```"""


def classes(names: tuple[str, ...]) -> str:
    """Class names in the order of the logits, not too many."""
    more = f", ... ({len(names)} in all)" if len(names) > MOST_CLASSES else ""
    return ", ".join(f"`{name}`" for name in names[:MOST_CLASSES]) + more


def data(run: Mapping[str, Any]) -> str:
    """Where the pictures came from and how many there were."""
    if not run:
        return ""
    counts = ", ".join(f"{count} for {part}" for part, count in run.get("pictures", {}).items())
    return (
        f"`{run['data']}`: {counts or 'unknown'} pictures; manifest `{run.get('manifest', '?')}`, "
        f"seed {run.get('seed', '?')}. The model has seen nothing else"
        + (", but for what its first weights were trained on" if run.get("weights") else "")
        + "; on pictures unlike these its answers mean little."
    )


def describe_start(card: "Card") -> str:
    """The weights that the training began with, and their licence."""
    found = card.extra.get("weights")
    if not found:
        return ""
    origin = Origin.from_dict(found, "the card's weights")
    revision = f", revision `{origin.revision}`" if origin.revision else ""
    said = " ".join(f"{line[0].upper()}{line[1:]}." for line in origin.lines)
    return f"{said} SHA-256 of the file `{origin.sha256}`{revision}."


def results(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """Accuracy with its 95 % interval (Wilson), by part of the data."""
    if not scores:
        return ""
    from scipy.stats import binomtest

    lines = [
        "| part | pictures | accuracy | 95 % interval | balanced accuracy | calibration error |"
    ]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for part, score in scores.items():
        count = int(score["count"])
        right = round(score["accuracy"] * count)
        low, high = binomtest(right, count).proportion_ci(method="wilson")
        lines.append(
            f"| {part} | {count} | {score['accuracy']:.3f} | {low:.3f} to {high:.3f} | "
            f"{score['balanced_accuracy']:.3f} | {score['ece']:.3f} |"
        )
    if set(scores) == {"val"}:
        lines.append(
            "\nThe best weights were chosen on `val`: on new pictures expect a little less."
        )
    return "\n".join(lines)


def cost(card: "Card", model: "nn.Module", result: Mapping[str, Any]) -> str:
    """What one picture costs, and what training took."""
    from vitrail.cost import count

    counted = count(model, card.image, card.in_chans)
    text = (
        f"{counted.params / 1e6:.2f} million parameters, {counted.macs / 1e9:.3f} G multiply-adds "
        f"for one picture of {card.image} px."
    )
    if result:
        text += f" Training: {result['epochs']} epochs, {result['seconds'] / 60:.0f} minutes."
    return text
