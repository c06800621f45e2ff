"""`reading.read_plainly` as one Triton kernel, for grids of two or three axes. Importing it loads Triton.

A program reads a tile of rows (queries) and some lines of the grid; a line is all tokens along the last axis. Within a
line the tables of the outer axes are one number a row, and the table and the sums of the last axis stay in registers.
So a score costs a product with the content, two additions, one exponential and three more multiply-adds. Content is
read as it lies in memory, also pixels, and each token's sigma is computed on the way.

The softmax runs over lines as in flash attention (Dao et al. 2022): each program keeps the largest score so far. The
weights of each line are stored with the largest score of that moment, and `_merge` brings all to the same one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from perceiverd.model.cuda.reading import Content, GridQueries, GridRead, GridTables, read_plainly

LOG2E = math.log2(math.e)
MAX_INNER, MAX_CHANNELS = 128, 128
"""The longest line, and the most channels of content, that fit into registers beside the rest."""
PROGRAMS = 264
"""Programs that keep a large GPU busy: two for each of an H100's 132 multiprocessors. With fewer, lines are split."""
STAGES = 2
"""Lines that are loaded ahead."""


@dataclass(frozen=True, slots=True)
class Tile:
    """How much one program does at once. Larger tiles load content less often and need more registers."""

    rows: int
    warps: int

    @classmethod
    def of(cls, half: torch.dtype | None, capability: tuple[int, int]) -> Tile:
        """The largest tile whose numbers stay in registers, as the compiler reports it for these cards; not timed."""
        if half is None:
            return cls(rows=32, warps=8)
        return cls(rows=64, warps=8) if capability >= (9, 0) else cls(rows=32, warps=4)


# The number of splits differs with the size of a batch, which must not compile the kernel again.
@triton.jit(do_not_specialize=["splits"])  # type: ignore[untyped-decorator]
def _read(  # type: ignore[no-untyped-def]
    values,  # (B, window_size), any type
    token_places,  # (M,), int32
    channel_places,  # (K,), int32
    present,  # (B,), int8
    content_queries,  # (B or 1, R, K)
    outer0,  # (B or 1, N0, R)
    outer1,  # (B or 1, N1, R)
    inner,  # (B or 1, R, X)
    fixed_mean,  # (M,)
    fixed_deviation,  # (M,)
    maxima,  # (B, S, R), out: largest score of a split, in powers of 2
    sums,  # (B, S, R), out: sum of the weights
    contents,  # (B, S, R, K), out: weighted sum of contents / sigma
    inners,  # (B, S, R, X), out: sum of weights / sigma at each place of the last axis
    line_maxima,  # (B, N0 * N1, R), out: largest score when the line was read
    line_sums,  # (B, N0 * N1, R), out: sum of weights / sigma in the line
    window_size,
    splits,
    scale,
    pooled,
    eps,
    query_windows: tl.constexpr,  # 1 if each window has its own queries, otherwise 0
    ROWS: tl.constexpr,
    N0: tl.constexpr,
    N1: tl.constexpr,
    X: tl.constexpr,
    K: tl.constexpr,
    FIXED: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK_X: tl.constexpr,
    BLOCK_K: tl.constexpr,
    TYPE: tl.constexpr,
):
    tile, split, window = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    r = tile * TILE + tl.arange(0, TILE)
    x = tl.arange(0, BLOCK_X)
    k = tl.arange(0, BLOCK_K)
    in_r, in_x, in_k = r < ROWS, x < X, k < K
    query_window = window * query_windows
    at_rk = in_r[:, None] & in_k[None, :]
    at_rx = in_r[:, None] & in_x[None, :]
    at_xk = in_x[:, None] & in_k[None, :]

    query = tl.load(content_queries + (query_window * ROWS + r[:, None]) * K + k[None, :], mask=at_rk, other=0.0)
    # Not times `scale`: with pixels, whose scale is 1 / 255, it would be too small for float16.
    query = query.to(TYPE)
    inner_table = tl.load(inner + (query_window * ROWS + r[:, None]) * X + x[None, :], mask=at_rx, other=0.0)
    channels = tl.load(channel_places + k, mask=in_k, other=0)

    largest = tl.full([TILE], float("-inf"), tl.float32)
    total = tl.zeros([TILE], tl.float32)
    content_sum = tl.zeros([TILE, BLOCK_K], tl.float32)
    inner_sum = tl.zeros([TILE, BLOCK_X], tl.float32)

    lines: tl.constexpr = N0 * N1
    first = split * lines // splits
    last = (split + 1) * lines // splits
    # Without the modality no line is read, but all outputs are written.
    stop = tl.where(tl.load(present + window) != 0, last, first)
    for line in range(first, stop):
        token = line * X + x
        places = tl.load(token_places + token, mask=in_x, other=0)
        raw = tl.load(values + window * window_size + places[:, None] + channels[None, :], mask=at_xk, other=0)
        content = raw.to(tl.float32)
        # LN's sigma over content and fixed channels; see GridTables.inverse_sigma.
        added = tl.sum(content, 1) * scale
        squared = tl.sum(content * content, 1) * scale * scale
        mean = added / K
        away = mean - tl.load(fixed_mean + token, mask=in_x, other=0.0)
        deviation = squared - added * mean + tl.load(fixed_deviation + token, mask=in_x, other=0.0)
        deviation = tl.maximum(deviation + away * away * pooled, 0.0)
        inverse = 1.0 / tl.sqrt(deviation / (K + FIXED) + eps)

        narrow = content.to(TYPE)
        outer = tl.load(outer0 + (query_window * N0 + line // N1) * ROWS + r, mask=in_r, other=0.0)
        outer += tl.load(outer1 + (query_window * N1 + line % N1) * ROWS + r, mask=in_r, other=0.0)
        score = tl.dot(query, tl.trans(narrow), input_precision="ieee")
        score = (score * scale + inner_table + outer[:, None]) * (inverse * 1.4426950408889634)[None, :]
        score = tl.where(in_x[None, :], score, float("-inf"))

        new = tl.maximum(largest, tl.max(score, 1))
        kept = tl.exp2(largest - new)
        weight = tl.exp2(score - new[:, None])
        total = total * kept + tl.sum(weight, 1)
        weight = weight * inverse[None, :]
        inner_sum = inner_sum * kept[:, None] + weight
        content_sum = content_sum * kept[:, None] + tl.dot(weight.to(TYPE), narrow, input_precision="ieee")
        largest = new
        at = (window * lines + line) * ROWS + r
        tl.store(line_maxima + at, new, mask=in_r)
        tl.store(line_sums + at, tl.sum(weight, 1), mask=in_r)
    for line in range(stop, last):
        at = (window * lines + line) * ROWS + r
        tl.store(line_maxima + at, tl.full([TILE], float("-inf"), tl.float32), mask=in_r)
        tl.store(line_sums + at, tl.zeros([TILE], tl.float32), mask=in_r)
    row = (window * splits + split) * ROWS + r
    tl.store(maxima + row, largest, mask=in_r)
    tl.store(sums + row, total, mask=in_r)
    tl.store(contents + row[:, None] * K + k[None, :], content_sum * scale, mask=at_rk)
    tl.store(inners + row[:, None] * X + x[None, :], inner_sum, mask=at_rx)


TYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


class KernelReader:
    """A `Reader`. Grids that the kernel cannot read go through `read_plainly`."""

    def __init__(self, half: torch.dtype | None, tile: Tile) -> None:
        """`half`: the type of products; None is float32. Sums and softmax are in float32 always."""
        self._type, self._tile = half or torch.float32, tile
        self._poison: float | None = None
        """If a number, outputs have it before the kernel writes them: for tests."""

    def can_read(self, tables: GridTables, queries: GridQueries) -> bool:
        """Whether the kernel fits this grid."""
        return (
            len(tables.grid) in (2, 3)
            and tables.grid[-1] <= MAX_INNER
            and tables.channels <= MAX_CHANNELS
            and queries.content.dtype == torch.float32
        )

    def __call__(self, queries: GridQueries, tables: GridTables, content: Content) -> GridRead:
        if not self.can_read(tables, queries):
            return read_plainly(queries, tables, content)
        batch, (query_windows, rows, channels) = len(content.present), queries.content.shape
        n0, n1, x = (1, *tables.grid)[-3:]
        *outers, inner = queries.axes
        # Rows last: a program loads the numbers of its rows at one place.
        outer1 = outers[-1].mT.contiguous()
        outer0 = outers[0].mT.contiguous() if len(outers) > 1 else torch.zeros_like(outer1[:, :1])
        tiles = -(-rows // self._tile.rows)
        splits = max(1, min(n0 * n1, PROGRAMS // (tiles * batch)))
        maxima, sums = self._empty(content, 2, batch, splits, rows)
        (contents,) = self._empty(content, 1, batch, splits, rows, channels)
        (inners,) = self._empty(content, 1, batch, splits, rows, x)
        line_maxima, line_sums = self._empty(content, 2, batch, n0 * n1, rows)
        values = content.values.flatten(1).contiguous()
        _read[(tiles, splits, batch)](
            values,
            content.layout.tokens,
            content.layout.channels,
            content.present.to(torch.int8),
            queries.content,
            outer0,
            outer1,
            inner,
            tables.fixed_mean,
            tables.fixed_deviation,
            *(maxima, sums, contents, inners, line_maxima, line_sums),
            values.shape[1],
            splits,
            content.layout.scale,
            tables.pooled,
            tables.eps,
            query_windows=int(query_windows > 1),
            ROWS=rows,
            N0=n0,
            N1=n1,
            X=x,
            K=channels,
            FIXED=tables.fixed,
            TILE=self._tile.rows,
            BLOCK_X=max(16, triton.next_power_of_2(x)),
            BLOCK_K=max(16, triton.next_power_of_2(channels)),
            TYPE=TYPES[self._type],
            num_warps=self._tile.warps,
            num_stages=STAGES,
        )
        lines = line_maxima.unflatten(1, (n0, n1)), line_sums.unflatten(1, (n0, n1))
        return _merge(maxima, sums, contents, inners, *lines, len(tables.grid))

    def _empty(self, content: Content, count: int, *shape: int) -> list[Tensor]:
        device = content.values.device
        if self._poison is not None:
            return [torch.full(shape, self._poison, device=device) for _ in range(count)]
        return [torch.empty(shape, device=device) for _ in range(count)]


def _merge(
    maxima: Tensor,
    sums: Tensor,
    contents: Tensor,
    inners: Tensor,
    line_maxima: Tensor,
    line_sums: Tensor,
    axes: int,
) -> GridRead:
    """What the splits read, together. Scores are in powers of 2; lines are (B, N0, N1, R)."""
    largest = maxima.amax(1)  # (B, R)
    finite = largest.masked_fill(largest == -math.inf, 0)
    share = (maxima - finite[:, None]).exp2()  # (B, S, R)
    total = (sums * share).sum(1)  # (B, R)
    lines = line_sums * (line_maxima - finite[:, None, None]).exp2()  # (B, N0, N1, R)
    outer = [lines.sum(2).mT, lines.sum(1).mT][3 - axes :]  # (B, R, N0), (B, R, N1)
    parts = [(contents * share[..., None]).sum(1), *outer, (inners * share[..., None]).sum(1)]
    # A window without the modality has sums of 0.
    values = torch.cat(parts, dim=-1) / total.clamp(min=torch.finfo(total.dtype).tiny)[..., None]
    return GridRead(values, (largest + total.log2()) / LOG2E)
