"""The least time of operations, from their products and bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from perceiverd.bench.roofline import LimitCounter, limit_s
from perceiverd.model.card import load_card


def test_products_and_bytes_are_counted_by_hand() -> None:
    """A linear layer is its product, an addition its bytes; whichever takes longer counts, and views take nothing."""
    x, weight, bias = torch.zeros(7, 11), torch.zeros(5, 11), torch.zeros(5)
    with torch.inference_mode(), LimitCounter(1.0, 1e9) as by_products:
        torch.nn.functional.linear(x, weight, bias)
    assert by_products.seconds == pytest.approx(2 * 7 * 11 * 5)
    with LimitCounter(1e12, 1.0) as by_bytes:
        x.T[1:] + 1.0
    assert by_bytes.seconds == pytest.approx(2 * 4 * 7 * 10)


def test_fused_attention_holds_no_scores() -> None:
    """It reads queries, keys and values and writes its result, with two products for each pair."""
    q, k = torch.zeros(1, 2, 9, 8), torch.zeros(1, 2, 13, 8)
    with torch.inference_mode(), LimitCounter(1.0, 1e9) as found:
        torch.nn.functional.scaled_dot_product_attention(q, k, k)
    assert found.seconds == pytest.approx(2 * 2 * 2 * 9 * 13 * 8, rel=0.01)


def test_a_batch_has_a_limit(tiny_model: Path) -> None:
    """Twice as many windows take twice as long, less the weights, which are read once."""
    card = load_card(tiny_model)
    one, four = (limit_s(card, batch, torch.bfloat16, 1e9, 1e9) for batch in (1, 4))
    assert 2 < four / one <= 4
