"""A hub on this machine in place of the real one, with an empty cache."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.hub.endpoint import Endpoint, serve

OpenHub = Callable[..., Endpoint]


@pytest.fixture
def hub_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenHub]:
    """``hub_server(repositories, fault)`` starts one, for the hub's client and for us."""
    from huggingface_hub import constants

    def start(repositories: dict[str, dict[str, bytes]], fault: str = "") -> Endpoint:
        endpoint = servers.enter_context(serve(repositories, fault))
        template = endpoint.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        return endpoint

    with ExitStack() as servers:
        yield start
