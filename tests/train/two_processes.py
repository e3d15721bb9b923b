"""One process of a training of several; started by ``test_processes`` with torchrun's variables.

RANK=0 WORLD_SIZE=2 ... python -m tests.train.two_processes FOLDER RECIPE.yaml norm|plain [STATE]

With STATE, a sharded model is saved there too, and loaded again: starting costs more than either.
"""

import sys
from pathlib import Path

import torch
from tests.train import sharded, small

from vitrail import train
from vitrail.train import processes


def main(out: str, recipe: str, norm: str, state: str = "") -> None:
    torch.set_num_threads(1)
    made = train.Recipe.from_yaml(Path(recipe))
    small.fit(Path(out), made, norm=norm == "norm", resume=True)
    if state:
        sharded.save_and_load(Path(state))
    processes.leave_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
