import subprocess

import pytest
from benchmarks.import_time import importing


def test_statements_run_in_a_fresh_python() -> None:
    importing("import vitrail.errors, benchmarks")()
    with pytest.raises(subprocess.CalledProcessError):
        importing("import no_such_module_here")()
