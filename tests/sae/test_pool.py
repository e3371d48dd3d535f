"""The shuffle pool."""

import dataclasses
from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae.errors import UserError
from sae.pool import Pool, Rows


def _count_up(piece: int, pieces: int = 10_000) -> Rows:
    """Rows 0, 1, 2, ... of width 1, in pieces."""

    def rows(start: int) -> Iterator[torch.Tensor]:
        for i in range(start, pieces):
            yield torch.arange(i * piece, (i + 1) * piece, dtype=torch.float32)[:, None]

    return rows


@given(piece=st.integers(1, 40), batch=st.integers(1, 8), batches=st.integers(1, 6), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_every_row_is_drawn_once_and_soon(piece: int, batch: int, batches: int, seed: int) -> None:
    """No row is drawn twice; what was neither drawn nor waits does not exist; none waits for two pools or more."""
    size = batch * batches
    pool = Pool(_count_up(piece), size=size, batch=batch, seed=seed)
    drawn: list[int] = []
    for turn in range(3 * batches):
        rows = pool.draw()[:, 0].int().tolist()
        assert len(rows) == batch
        newest = size + turn * batch
        assert all(newest - 2 * size <= row < newest for row in rows)
        drawn += rows
    waiting = pool.rows[:, 0].int().tolist()
    assert sorted(drawn + waiting) == list(range(4 * size))


def test_the_order_depends_on_the_seed_only() -> None:
    """The same seed gives the same batches whatever the pieces of the stream, another seed other ones."""
    first, same, other = (
        torch.cat([pool.draw() for _ in range(6)])
        for pool in (
            Pool(_count_up(7), size=32, batch=8, seed=1),
            Pool(_count_up(13), size=32, batch=8, seed=1),
            Pool(_count_up(7), size=32, batch=8, seed=2),
        )
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_a_batch_mixes_the_whole_pool() -> None:
    """Neighbours in the stream come apart: a batch spans most of the pool."""
    pool = Pool(_count_up(64), size=1024, batch=32, seed=0)
    for _ in range(32):
        rows = pool.draw()
        assert rows.max() - rows.min() > 512


def test_an_ended_stream_is_named() -> None:
    """A stream that ends too soon is a mistake of the user's, named as such."""
    pool = Pool(_count_up(8, pieces=4), size=16, batch=8, seed=0)
    pool.draw()
    pool.draw()
    with pytest.raises(UserError, match="ran out"):
        pool.draw()


@given(piece=st.integers(1, 40), drawn=st.integers(0, 9), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_a_pool_goes_on_from_its_state(piece: int, drawn: int, seed: int) -> None:
    """What is drawn from a copy of the state is what the pool itself draws next."""
    pool = Pool(_count_up(piece), size=24, batch=8, seed=seed)
    for _ in range(drawn):
        pool.draw()
    state = pool.state()
    copy = dataclasses.replace(state, rows=state.rows.clone(), rest=state.rest.clone())
    again = Pool(_count_up(piece), size=24, batch=8, seed=seed, state=copy)
    for _ in range(7):
        assert torch.equal(pool.draw(), again.draw())


def test_a_document_is_spread_over_a_pass_as_by_a_full_shuffle() -> None:
    """How often two rows of one document are in one batch, or in batches 1 to 8 apart.

    Documents of 128 rows, pool of 64 batches of 256. Shuffled in full, the rows that enter in one pass of the pool
    would leave in any batch of the next: two of them in the same one with a probability of 1 in 64, and `lag` apart
    in (64 - lag) of 64 squared.
    """
    batch, batches, length = 256, 64, 128

    def documents(start: int) -> Iterator[torch.Tensor]:
        return (torch.full((length, 1), float(i)) for i in range(start, 2000))

    pool = Pool(documents, size=batches * batch, batch=batch, seed=0)
    drawn = [pool.draw()[:, 0].long() for _ in range(8 * batches)]
    counts = torch.stack([torch.bincount(each, minlength=2000) for each in drawn]).double()
    together = [(counts[: len(counts) - lag] * counts[lag:]).sum(1).mean().item() for lag in range(9)]
    together[0] = (together[0] - batch) * length / (length - 1)  # no row with itself
    expected = [batch * length * (batches - lag) / batches**2 for lag in range(9)]
    assert together == pytest.approx(expected, rel=0.05)


def test_successive_batches_share_documents_as_rarely_as_after_a_full_shuffle_of_the_pool() -> None:
    """Two rows of successive batches come from one document hardly more often than from `size` shuffled rows."""
    length, batch, size, draws = 16, 64, 2048, 600
    documents = torch.arange(draws * batch + size).div(length, rounding_mode="floor").float()
    pool = Pool(lambda start: iter(documents[:, None].split(96)[start:]), size=size, batch=batch, seed=0)
    drawn = [pool.draw().squeeze(1) for _ in range(draws)][size // batch :]
    pairs = [torch.isin(a, b).float().mean().item() for a, b in pairwise(drawn)]
    shuffled = documents[torch.randperm(size, generator=torch.Generator().manual_seed(0))].split(batch)
    wanted = [torch.isin(a, b).float().mean().item() for a, b in pairwise(shuffled)]
    assert sum(pairs) / len(pairs) == pytest.approx(sum(wanted) / len(wanted), rel=0.1)
