"""The comparison: several backbones trained alike on the same pictures, and an honest report.

plan -> run (job by job, resumable) -> analyse (intervals, paired tests) -> report.html
"""

from vitrail.study.plan import Job, Plan
from vitrail.study.report import Dossier, report
from vitrail.study.run import Finished, Tools, finish, resume, run
from vitrail.study.table import terminal_table

__all__ = [
    "Dossier",
    "Finished",
    "Job",
    "Plan",
    "Tools",
    "finish",
    "report",
    "resume",
    "run",
    "terminal_table",
]
