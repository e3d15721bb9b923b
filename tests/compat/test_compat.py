"""What commit 0972ca9 wrote opens, predicts, explains, resumes and goes on with the same numbers.

Made once by :mod:`tests.compat.make`; the plug-in of its run is named, as after any move.
"""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from vitrail import explain, plugins, study
from vitrail.cli import main
from vitrail.data import open_dataset
from vitrail.export import open_folder
from vitrail.hub import open_run

HERE = Path(__file__).parent
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compat")
    with tarfile.open(HERE / "made.tar.gz") as packed:
        packed.extractall(folder, filter="data")
    return folder / "made"


@pytest.fixture(scope="module")
def expected(made: Path) -> dict[str, Any]:
    return json.loads((made / "expected.json").read_text())


@pytest.fixture(scope="module")
def images() -> list[Any]:
    sample = open_dataset("fashion")
    return [sample.read(item) for item in sample.split("test")[:4]]


@pytest.mark.filterwarnings("ignore:.*swirl")
@pytest.mark.parametrize(
    ("name", "methods"),
    [("run", ("lrp", "cluster_map")), ("plain", ("rollout", "saliency", "filter_mask"))],
)
def test_runs_predict_and_explain(name, methods, made, expected, images) -> None:
    plugins.use(HERE / "swirl.py")
    run = open_run(made / name, device="cpu")
    torch.testing.assert_close(run.predict(images), torch.tensor(expected[name]), **CLOSE)
    x = torch.stack([run.preprocess.transform()(image) for image in images])
    for method in methods:
        maps = explain(run.model, x, method=method, target=3).map[:, ::8, ::8]
        torch.testing.assert_close(maps, torch.tensor(expected[f"{name} {method}"]), **CLOSE)


@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_exports_predict(kind, made, expected, images) -> None:
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
    probabilities = open_folder(made / kind).predict(images)
    torch.testing.assert_close(probabilities, torch.tensor(expected[kind]), **CLOSE)


def test_a_stopped_run_goes_on_to_the_same_answer(made, expected) -> None:
    assert main(["train", "--resume", str(made / "stopped")]) == 0
    last = json.loads((made / "stopped" / "metrics.jsonl").read_text().splitlines()[-1])
    wanted = expected["resumed"]
    assert {key: last[key] for key in wanted} == pytest.approx(wanted, rel=1e-5)


def test_a_finished_study_is_complete(made, expected) -> None:
    done = study.resume(made / "study", progress=False)
    assert done.status == 0
    rows = [
        {key: row[key] for key in wanted}
        for row, wanted in zip(done.rows, expected["study"], strict=True)
    ]
    assert rows == expected["study"]
