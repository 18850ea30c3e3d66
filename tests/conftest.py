"""What all tests share."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Keep to one thread: several test workers share two cores."""
    torch.set_num_threads(1)
