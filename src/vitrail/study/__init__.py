"""The comparison: several backbones trained alike on the same pictures, and an honest report.

plan -> run (job by job, resumable) -> analyse (intervals, paired tests) -> report.html
"""

from vitrail.study.plan import Job, StudyPlan
from vitrail.study.report import StudyResults, report
from vitrail.study.run import StudyOutcome, Tools, finish, resume, run
from vitrail.study.table import terminal_table

__all__ = [
    "StudyResults",
    "StudyOutcome",
    "Job",
    "StudyPlan",
    "Tools",
    "finish",
    "report",
    "resume",
    "run",
    "terminal_table",
]
