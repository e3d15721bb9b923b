"""The house keeps its rules: imports flow down, files and functions stay small, all is tested."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "vitrail"
FILES = sorted(SOURCE.rglob("*.py"))
LONGEST_FILE, LONGEST_FUNCTION = 420, 60

# Files without a test file of their own name, by the suite that holds them.
SUITES = {
    "tests/cli/test_app.py": "__main__.py cli/options.py",
    "tests/cli/test_compare.py": "cli/conditions.py",
    "tests/cli/test_cost.py": "cli/doctor.py",
    "tests/contracts/test_mixers.py": "mixers/base.py mixers/reduced_keys.py mixers/prototype.py "
    "mixers/softmax.py mixers/gated.py mixers/lsa.py mixers/projected.py mixers/spatial.py "
    "mixers/reduced.py mixers/relative.py layers/attend.py testing/mixer_laws.py",
    "tests/contracts/test_reducers.py": "reducers/base.py reducers/cluster.py reducers/density.py "
    "reducers/merge.py reducers/pool.py tokens/clusterers.py "
    "tokens/plans.py layers/plan.py testing/reducer_laws.py",
    "tests/contracts/test_backbones.py": "models/backbone.py models/pyramid.py models/zoo.py",
    "tests/attribution/test_lrp.py": "attribution/lrp_call.py attribution/lrp_layers.py "
    "attribution/lrp_rules.py",
    "tests/layers/test_fused.py": "layers/conv.py layers/feed.py layers/mbconv.py "
    "testing/layer_laws.py",
    "tests/parity/test_cct.py": "models/cct.py",
    "tests/parity/test_ceit.py": "models/ceit.py",
    "tests/parity/test_cmt.py": "models/cmt.py",
    "tests/parity/test_coatnet.py": "models/coatnet.py models/coatnet_rw.py "
    "models/coatnet_weights.py models/vit_rel.py",
    "tests/parity/test_convit.py": "models/convit.py",
    "tests/parity/test_cvt.py": "models/cvt.py",
    "tests/parity/test_deit.py": "models/deit.py",
    "tests/parity/test_vit_layouts.py": "models/jax.py layers/patches.py",
    "tests/parity/test_filtervit.py": "models/filtervit.py models/filtervit_v2.py "
    "models/filtervit_weights.py",
    "tests/parity/test_mobilevit.py": "models/mobilevit.py layers/inverted.py",
    "tests/parity/test_originals.py": "models/coat.py models/vit.py",
    "tests/cli/test_explain.py": "cli/maps.py cli/scoring.py",
    "tests/attribution/test_draw.py": "attribution/segments.py",
    "tests/attribution/test_scores.py": "attribution/scores/rank.py attribution/scores/curves.py "
    "attribution/scores/places.py attribution/scores/stability.py attribution/scores/sources.py "
    "attribution/scores/table.py attribution/scores/format.py",
    "tests/export/test_optimized.py": "export/graph.py export/quant.py export/report.py "
    "export/verify.py",
    "tests/data/test_loader.py": "data/cache.py",
    "tests/data/test_decode.py": "data/limits.py",
    "tests/data/test_sources.py": "data/items.py data/layout.py data/scan.py data/dataset.py "
    "data/clean.py data/summary.py",
    "tests/data/test_table.py": "data/parquet.py",
    "tests/study/test_report.py": "study/figures.py study/banner.py "
    "study/record.py study/verdict.py",
    "tests/study/test_run.py": "study/costs.py study/progress.py study/table.py",
    "tests/study/test_choose.py": "train/features.py study/choose/halving.py study/choose/pool.py",
    "tests/study/test_choose_run.py": "study/choose/answer.py study/choose/check.py "
    "study/choose/figure.py "
    "study/choose/lines.py study/choose/race.py study/choose/question.py study/choose/rounds.py "
    "study/choose/run.py study/choose/state.py",
    "tests/study/test_choose_tools.py": "study/choose/choice.py study/choose/tools.py",
    "tests/study/test_whole.py": "study/setup.py study/job.py",
    "tests/train/test_fit.py": "train/checkpoint.py "
    "train/display.py train/loaders.py train/job.py train/mixup.py train/result.py train/track.py "
    "train/trainer.py",
    "tests/attribution/test_cam.py": "attribution/cam_layers.py models/reading.py",
    "tests/attribution/test_masks.py": "attribution/centres.py",
    "tests/hub/test_resolve.py": "hub/names.py",
    "tests/hub/test_weights.py": "hub/origin.py hub/released.py",
    "tests/hub/test_runs.py": "hub/locate.py",
    "tests/hub/test_save.py": "hub/modelcard.py",
    "tests/hub/test_timm_adapter.py": "timm.py hub/timm_names.py",
    "tests/test_files.py": "disk.py",
    "tests/train/test_kill.py": "train/stop.py",
}
SUITE_OF = {name: suite for suite, names in SUITES.items() for name in names.split()}


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text())
    yield from (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


def test_imports_flow_down() -> None:
    linter = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run(
        [linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_file_has_tests() -> None:
    """A file of its own name in ``tests``, or the suite that SUITES names."""
    without = []
    for name in (name_of(path) for path in FILES if path.name != "__init__.py"):
        own = (ROOT / "tests" / name).with_name(f"test_{Path(name).name}")
        if not own.is_file() and not (name in SUITE_OF and (ROOT / SUITE_OF[name]).exists()):
            without.append(name)
    assert not without, "write tests of this name, or name their suite in SUITES"


def test_suites_name_only_files_that_exist_and_have_no_test_of_their_own() -> None:
    assert [name for name in SUITE_OF if not (SOURCE / name).is_file()] == []
    own = [n for n in SUITE_OF if (ROOT / "tests" / n).with_name(f"test_{Path(n).name}").is_file()]
    assert own == []


def test_files_and_functions_are_short() -> None:
    long = [name_of(f) for f in FILES if len(f.read_text().splitlines()) > LONGEST_FILE]
    long += [
        f"{name_of(path)}: {function.name}"
        for path in FILES
        for function in functions(path)
        if (function.end_lineno or 0) - function.lineno >= LONGEST_FUNCTION
    ]
    assert not long, f"files over {LONGEST_FILE} or functions over {LONGEST_FUNCTION} lines"
