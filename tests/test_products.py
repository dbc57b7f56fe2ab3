from __future__ import annotations

import pytest
import torch

from rine_cache.heads import products
from rine_cache.heads.products import linear


@pytest.fixture(params=["cpu", "stacked"])
def anywhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Multiply one head after another, or as on a GPU in one batched product."""
    if request.param == "stacked":
        monkeypatch.setattr(products, "_one_by_one", lambda device: False)
    return request.param


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 5, 7, 3), (4, 130, 64, 33), (2, 1, 1, 1), (3, 300, 17, 128)])
def test_products_are_those_of_torch(shape: tuple[int, int, int, int], dtype: torch.dtype, anywhere: str) -> None:
    heads, rows, columns, width = shape
    torch.manual_seed(0)
    x = torch.randn(heads, rows, columns, dtype=dtype)
    weight, bias = torch.randn(heads, width, columns, dtype=dtype), torch.randn(heads, width, dtype=dtype)
    expected = x @ weight.mT + bias[:, None]
    torch.testing.assert_close(linear(x, weight, bias), expected)
    torch.testing.assert_close(linear(x, weight, bias, relu=True), expected.relu())
    torch.testing.assert_close(linear(x, weight), x @ weight.mT)


def test_operands_of_any_layout(anywhere: str) -> None:
    """Transposed, as gradients ask for them, sliced, and shared by all heads."""
    torch.manual_seed(0)
    gradient, weight = torch.randn(2, 40, 24), torch.randn(2, 24, 16)
    shared = torch.randn(40, 16)
    wide = torch.randn(2, 6, 10, 16)
    torch.testing.assert_close(linear(gradient, weight.mT), gradient @ weight)
    for columns in (shared.mT, shared.mT.contiguous()):
        torch.testing.assert_close(linear(gradient.mT, [columns, columns]), gradient.mT @ shared)
        memory = torch.zeros(2, 24, 16)
        torch.testing.assert_close(linear(gradient.mT, [columns, columns], out=memory), gradient.mT @ shared)
    sliced = wide[:, 1:3].flatten(1, 2)  # (2, 20, 16)
    torch.testing.assert_close(linear(sliced, weight), sliced @ weight.mT)
    torch.testing.assert_close(linear([shared, shared], weight), shared @ weight.mT)
    torch.testing.assert_close(linear([shared, shared * 2], weight)[1], 2 * shared @ weight[1].mT)


@pytest.mark.parametrize("heads", [1, 3])
def test_a_result_goes_where_it_is_told_to(heads: int, anywhere: str) -> None:
    """Into memory whose heads stand apart, as a head's gradients do."""
    torch.manual_seed(0)
    x, weight = torch.randn(heads, 9, 6), torch.randn(heads, 4, 6)
    memory = torch.full((heads, 50), torch.nan)
    out = memory[:, 5:41].view(heads, 9, 4)
    linear(x, weight, out=out)
    torch.testing.assert_close(memory[:, 5:41].reshape(heads, 9, 4), x @ weight.mT)
    assert memory[:, :5].isnan().all()
    assert memory[:, 41:].isnan().all()
