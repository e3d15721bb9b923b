import pytest
import torch
from tests.cost import builders

from vitrail import cost
from vitrail.cost.candidates import (
    allow_many_compiles,
    build_on_device,
    find_build,
    forward,
    name_build,
)
from vitrail.errors import UserError

SMALL = cost.Settings(image=16, batch=2, classes=5)


def test_settings_refuse_what_cannot_be() -> None:
    with pytest.raises(UserError, match="batch must be 1 or more, not 0"):
        cost.Settings(batch=0)
    with pytest.raises(UserError, match="no precision 'int3'; there are float32, bfloat16"):
        cost.Settings(precision="int3")
    with pytest.raises(UserError, match="no graph 'jit'"):
        cost.Settings(graph="jit")


def test_builders_go_by_name_too() -> None:
    assert find_build("tests.cost.builders:build") is builders.build
    assert name_build(builders.build) == "tests.cost.builders:build"
    with pytest.raises(UserError, match="cannot build models with 'vitrail:nothing'"):
        find_build("vitrail:nothing")
    with pytest.raises(UserError, match="fresh process, which cannot import"):
        name_build(lambda arm, **options: torch.nn.Identity())


@pytest.mark.parametrize(
    ("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)]
)
def test_forward_runs_as_told(precision: str, dtype: torch.dtype) -> None:
    settings = cost.Settings(image=16, classes=5, precision=precision)
    model = build_on_device("narrow", settings, builders.build)
    out = forward(model, settings, batch=3)()
    assert out.shape == (3, 5)
    assert out.dtype == dtype
    assert out.is_inference()
    assert not model.training


def test_compiled_forward_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting reaches torch.compile, with static shapes (the backend is left out for speed)."""
    asked = {}

    def fake_compile(model: torch.nn.Module, **options: object) -> torch.nn.Module:
        asked.update(options)
        return model

    monkeypatch.setattr(torch, "compile", fake_compile)
    settings = cost.Settings(image=16, classes=5, graph="compiled")
    forward(build_on_device("narrow", settings, builders.build), settings, batch=1)()
    assert asked == {"dynamic": False}


def test_many_compiled_models_do_not_fall_back_to_eager() -> None:
    import torch._dynamo

    settings, graphs = cost.Settings(graph="compiled"), []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    with allow_many_compiles(settings):
        for classes in range(1, 11):  # torch's own limit is eight
            model = builders.build("narrow", classes=classes, image=4)
            torch.compile(model, backend=backend, dynamic=False)(torch.zeros(1, 3, 4, 4))
    assert len(graphs) == 10
    torch._dynamo.reset()
