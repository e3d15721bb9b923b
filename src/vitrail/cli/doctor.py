"""``vitrail doctor``: whether this machine is in order."""

from dataclasses import dataclass
from pathlib import Path

from vitrail.cli.command import Answer, Command, table


@dataclass(kw_only=True)
class Doctor(Command):
    """Look whether this machine is in order: versions that fit, processor, memory, GPU, folder.

    Exit status 1 if something is broken. Example: vitrail doctor
    """

    def run(self) -> Answer:
        """Every finding, with its cure."""
        from vitrail.hub.doctor import examine

        found = examine(Path.cwd())
        rows = [("ok" if f.ok else "BROKEN", f.about, f.found) for f in found]
        cures = [f"{f.about}: {f.cure}" for f in found if f.cure]
        healthy = all(f.ok for f in found)
        parts = [table(("", "what", "found"), rows, left=3), *cures]
        data = {"healthy": healthy, "findings": [vars(f) for f in found]}
        verdict = "all is well" if healthy else "something is broken: see above"
        return Answer(data, [*parts, verdict], status=0 if healthy else 1)
