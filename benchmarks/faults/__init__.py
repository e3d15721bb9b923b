"""Does Vitrail hold what ``docs/promises.md`` promises? Damaged inputs and broken machines, tried.

kind + seed + index -> one trial (inputs made by chance) -> held, or a fault with its reproducer
trials -> worker processes with limits of time and memory -> table tried / held / faults

``python -m benchmarks.faults --minutes 60`` tries all kinds; ``--only KIND`` some, ``--index N``
one trial again. Nothing outside the work folder is written, but the result file.
"""
