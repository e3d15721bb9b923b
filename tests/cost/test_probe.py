import json

import pytest
import torch
from torch import nn

from vitrail import cost
from vitrail.cost import probe
from vitrail.cost.peak import MemoryJob

SETTINGS = cost.Settings(image=8, batch=2, classes=3)


def test_weights_count_buffers_and_precision() -> None:
    layer = nn.Sequential(nn.Linear(4, 4, bias=False).half(), nn.BatchNorm1d(4))
    assert probe.weights(layer) == 16 * 2 + 2 * 4 * 4 + 2 * 4 * 4 + 8


@pytest.mark.skipif(not probe.STATUS.exists(), reason="needs Linux's /proc")
def test_peak_sees_what_is_already_freed() -> None:
    probe.trim()
    probe.reset_peak()
    before = probe.resident()
    assert abs(probe.peak_resident() - before) < 2**22
    block = torch.ones(2**24)  # 64 MB
    del block
    assert probe.peak_resident() - before > 60 * 2**20


def test_main_prints_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    job = MemoryJob(
        model="narrow", build="tests.cost.builders:build", train=False, settings=SETTINGS
    )
    probe.main(job.to_json())
    assert json.loads(capsys.readouterr().out)["peak"] > 0


@pytest.mark.parametrize(("in_chans", "image"), [(1, 4), (3, 30), (5, 64)])
def test_the_rehearsal_serves_every_picture(in_chans: int, image: int) -> None:
    assert probe.Toy(in_chans)(torch.zeros(2, in_chans, image, image)).shape == (2, 2)
