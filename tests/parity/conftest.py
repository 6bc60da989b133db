"""Only the other libraries' warnings are let pass here; those of minipt stay errors."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "parity" in item.path.parts:
            for module in ("torch", "transformers", "peft"):
                item.add_marker(pytest.mark.filterwarnings(rf"ignore:::{module}(\..*)?"))


@pytest.fixture(autouse=True)
def one_thread():
    """Sizes this small gain nothing from more threads."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
