"""From the blocks of a corpus to batches of a family with what each objective asks of them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import spaf_data
from spaf_data import Block, BlockRef, Corpus
from spaf_model import CONTEXT_KINDS, InContext, InputError, KnowsSlides, ReadsPairs
from spaf_train.stream.batch import Batch
from spaf_train.stream.contexts import UNKNOWN, context_ids
from spaf_train.stream.halo import Halos
from spaf_train.stream.samplers import SAMPLERS, SamplingConfig, block_order
from spaf_train.stream.window import (
    Cells,
    Draw,
    Inputs,
    Window,
    cell_counts,
    drawn_counts,
    owned,
    slide_counts,
    tokens_of,
)

if TYPE_CHECKING:
    from spaf_model import CellCounts, Model, TokenisedCells, TrainableBatch
    from spaf_train.objectives import ObjectivesConfig


class BadShardError(InputError):
    """A shard of a corpus is missing or damaged."""


@dataclasses.dataclass(frozen=True)
class _Drawn:
    """The batches of a window."""

    cells: Cells
    batches: list[tuple[Inputs, list[NDArray[np.int64]]]]  # with the rows of the parts that pass the network at once
    name: str


class BatchStream:
    """The batches of a split of a corpus, epoch after epoch, in an order that a seed decides.

    An epoch visits the blocks in a random order, a window of some blocks at a time, which the sampler
    (``sampling.input``) cuts into batches. What a batch holds, down to the masked genes, is a function of
    the corpus, the configuration, the seed, the epoch, the window and the batch's place in it, and of nothing else:
    not of the number of ranks, nor of where the run was interrupted.

    The stream of batches is one for all ranks. A step takes the next n of them, and rank r of R builds those at the
    places r, r + R, ... of the step, so every rank gets equally many and each batch is seen by exactly one rank. Ranks
    may be more than blocks. Every rank reads every block, which costs less than a hundredth of training on it.

    Parameters
    ----------
    corpus
        Where the blocks are.
    model
        Whose tokeniser makes batches, in the tokens of its vocabulary; its network is not looked at.
    sampling
        What is drawn.
    objectives
        What is asked.
    split
        ``"train"`` or ``"validation"``.
    seed
        Of the order and of all draws.
    rank, world_size
        This process among all.
    skip_shards
        Names of shards that are not read. Their blocks keep their places in the order, as if they were empty, so a
        run can go on after a shard was lost.

    Raises
    ------
    InputError
        If the split has no block that may be read, its genes are not those of the vocabulary, distances contradict
        the graph of the corpus, the family does not read what is drawn, or the batches of a step cannot be dealt evenly
        to the ranks.
    BadShardError
        By the methods that read, if a shard is missing or damaged.
    """

    def __init__(
        self,
        corpus: Corpus,
        model: Model[Any, Any],
        sampling: SamplingConfig,
        objectives: ObjectivesConfig,
        *,
        split: str,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        skip_shards: Collection[str] = (),
    ) -> None:
        if sampling.batches_per_step % world_size:
            raise InputError(
                f"sampling.batches_per_step ({sampling.batches_per_step}) must be a multiple of the number of "
                f"processes ({world_size}), so that each gets equally many batches."
            )
        self.corpus = corpus
        self.vocabulary = vocabulary = model.vocabulary
        self.tokeniser = model.tokeniser
        self.sampling = sampling
        self.sampler = SAMPLERS[sampling.input](sampling, corpus.distances)
        self.distances = self.sampler.distances
        self.objectives = objectives
        self.asked = objectives.make()
        self.split = split
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self._refs = corpus.block_refs(split)
        if not self._refs:
            raise InputError(f"The corpus has no block in its split {split!r}.")
        self._skip_shards = frozenset(skip_shards)
        if self._skip_shards.issuperset(ref.shard for ref in self._refs):
            raise InputError(f"Every shard of the split {split!r} is bad; there is nothing left to read.")
        self._halos = Halos(self._refs, self._read_block, corpus.distances.positive, self._skip_shards)
        self.token_of_gene = vocabulary.match(corpus.genes, corpus.gene_ids).token_ids
        panels = [np.ones(len(corpus.genes), dtype=bool), *(corpus.measured(slide) for slide in corpus.slides)]
        tokens = [tokens_of(genes, self.token_of_gene, vocabulary.n_tokens) for genes in panels]
        self._measured, self._panels = tokens[0], np.stack(tokens[1:])
        self._context = {slide: context_ids(vocabulary, context) for slide, context in corpus.slides.items()}
        # Published vocabularies have no token for what is unknown, and need none as long as nothing is dropped.
        dropped = dict.fromkeys(CONTEXT_KINDS, UNKNOWN) if sampling.context_dropout > 0.0 else {}
        self._unknown = context_ids(vocabulary, dropped)
        if self.sampler.cells_per_input == 2 and not isinstance(self._nothing(), ReadsPairs):
            raise InputError(
                f"sampling.input = {sampling.input} draws two cells as one input, and the family {model.family!r} "
                "reads one: choose another input, such as cells or patches."
            )
        self._epoch = 0
        self._window = 0
        self._batch = 0
        self._loaded: tuple[int, int, _Drawn | None] | None = None
        self._kept: Cells | None = None  # the whole split, for a sampler that draws from that
        self._knows_slides = not isinstance(self.tokeniser, KnowsSlides)
        self._number_of_slide = {slide: number for number, slide in enumerate(corpus.slides)}
        self._first_of_block = np.cumsum([0, *(ref.n_owned for ref in self._refs)])

    def __getstate__(self) -> dict[str, Any]:  # a worker reads for itself
        return {**self.__dict__, "_loaded": None, "_kept": None}

    @property
    def batches_per_step(self) -> int:
        """Batches of a step over all processes."""
        return self.sampling.batches_per_step

    @property
    def within_budget(self) -> bool:
        """Whether every batch passes the network at once."""
        return self.sampler.within_budget

    @property
    def epoch(self) -> int:
        """The epoch of the next batch, from 0."""
        return self._epoch

    def state_dict(self) -> dict[str, int]:
        """Return the place of the next batch."""
        return {"epoch": self._epoch, "window": self._window, "batch": self._batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on at a place that `state_dict` gave, with the same or another number of ranks."""
        self._epoch, self._window, self._batch = (int(state[key]) for key in ("epoch", "window", "batch"))

    def next_step(self) -> list[Batch]:
        """Return this rank's batches of the next step."""
        batches = []
        for place in range(self.sampling.batches_per_step):
            window = self._current_window()
            if place % self.world_size == self.rank:
                batches.append(self._build(window, self._epoch, self._window, self._batch))
            self._batch += 1
        return batches

    def skip_step(self) -> None:
        """Pass over the next step."""
        for _ in range(self.sampling.batches_per_step):
            self._current_window()
            self._batch += 1

    def one_epoch(self, epoch: int = 0, *, max_inputs: int | None = None) -> Iterator[Batch]:
        """Yield this rank's batches of one epoch, from its beginning; the place of the stream is not touched.

        Parameters
        ----------
        epoch
            Which epoch.
        max_inputs
            End before the batch that would exceed so many inputs, over all ranks; the first batch always comes.
        """
        n_inputs = place = 0
        for number in range(self._n_windows):
            window = self._read_window(epoch, number)
            if window is None:
                continue
            for batch, (inputs, _) in enumerate(window.batches):
                n_inputs += len(inputs)
                if max_inputs is not None and n_inputs > max_inputs and place:
                    return
                if place % self.world_size == self.rank:
                    yield self._build(window, epoch, number, batch)
                place += 1

    @property
    def _n_windows(self) -> int:
        return len(self.sampler.windows(np.arange(len(self._refs))))

    def _current_window(self) -> _Drawn:
        """Return the window of the next batch, passing over windows and epochs that are used up."""
        empty = 0
        while True:
            if self._window >= self._n_windows:
                self._epoch, self._window, self._batch = self._epoch + 1, 0, 0
            if self._loaded is None or self._loaded[:2] != (self._epoch, self._window):
                self._loaded = (self._epoch, self._window, self._read_window(self._epoch, self._window))
            window = self._loaded[2]
            if window is not None and self._batch < len(window.batches):
                return window
            empty = empty + 1 if window is None or not window.batches else 0
            if empty > self._n_windows:
                raise InputError(f"The corpus has no {self.sampler.input_is} in its split {self.split!r}.")
            self._window, self._batch = self._window + 1, 0

    def _read_window(self, epoch: int, number: int) -> _Drawn | None:
        """Read the blocks of a window and draw its inputs; None if all its blocks are in shards that are skipped."""
        order = block_order(len(self._refs), seed=self.seed, epoch=epoch)
        places = [int(place) for place in self.sampler.windows(order)[number]]
        chosen = [place for place in places if self._refs[place].shard not in self._skip_shards]
        if not chosen:
            return None
        if self.sampler.whole:
            cells, blocks, offsets = self.all_cells(), [], np.zeros(0, dtype=np.int64)
            name = f"epoch {epoch}"
        else:
            blocks = [self._read_block(self._refs[place]) for place in chosen]
            if self.sampler.reads_neighbours:
                blocks = [self._halos.completed(place, block) for place, block in zip(chosen, blocks, strict=True)]
            offsets = np.cumsum([0, *(block.n_cells for block in blocks)])[:-1]
            cells = self._tokenise(blocks, chosen)
            name = f"epoch {epoch}, blocks {', '.join(block.key for block in blocks)}"
        window = Window(cells, blocks, offsets, chosen, self.seed, epoch, number)
        batches = [(inputs, self.sampler.parts(window.lengths_of(inputs))) for inputs in self.sampler.batches(window)]
        return _Drawn(cells, batches, name)

    def all_cells(self) -> Cells:
        """Return the cells of the whole split, without those that are there twice, and keep them in memory."""
        if self._kept is None:
            chosen = [place for place, ref in enumerate(self._refs) if ref.shard not in self._skip_shards]
            blocks = [owned(self._read_block(self._refs[place])) for place in chosen]
            cells = self._tokenise(blocks, chosen)
            reach = dict.fromkeys(np.unique(cells.slide).tolist(), np.inf)
            self._kept = dataclasses.replace(cells, group=cells.slide, reach=reach)
        return self._kept

    def draws(self, seed: int) -> Iterator[Inputs]:
        """Yield batches of the whole split without end, as positions in `all_cells`, by a seed of their own.

        For a sampler that draws from the whole split.
        """
        cells = self.all_cells()
        places = list(range(len(self._refs)))
        for epoch in itertools.count():
            none = np.zeros(0, dtype=np.int64)
            yield from self.sampler.batches(Window(cells, [], none, places, seed, epoch, 0))

    def blocks(self, n_cells: int | None = None) -> Iterator[Block]:
        """Yield the blocks of the split that may be read, in the order of the corpus; some, for about so many cells."""
        refs = [ref for ref in self._refs if ref.shard not in self._skip_shards]
        every = 1 if n_cells is None else max(-(-sum(ref.n_owned for ref in refs) // n_cells), 1)
        yield from (self._read_block(ref) for ref in refs[::every])

    def panel(self, slide: str) -> NDArray[np.bool_]:
        """Return which tokens a slide measures, (n_tokens,)."""
        found: NDArray[np.bool_] = self._panels[self._number_of_slide[slide]]
        return found

    def has_neighbours(self, radius: float) -> bool:
        """Whether two cells of the split lie within a radius (um), at most that of the corpus, of each other."""
        refs = [ref for ref in self._refs if ref.n_pairs and ref.shard not in self._skip_shards]
        if radius >= self.corpus.distances.positive:
            return bool(refs)
        for ref in refs:
            block = self._read_block(ref)
            left, right = block.coordinates[block.positive_pairs.T]
            if (np.hypot(*(left - right).T) <= radius).any():
                return True
        return False

    def _slides(self) -> Iterator[CellCounts]:
        """Yield the cells of each slide in the split by its number, none for a slide without, one slide at a time."""
        refs = [ref for ref in self._refs if ref.shard not in self._skip_shards]
        for number, slide in enumerate(self._number_of_slide):
            blocks = [self._read_block(ref) for ref in refs if ref.slide == slide]
            yield slide_counts(blocks, self.token_of_gene, self._measured, slide=number)

    @property
    def n_cells(self) -> int:
        """Cells of the split, each counted once, bad shards included."""
        return int(self._first_of_block[-1])

    def _read_block(self, ref: BlockRef) -> Block:
        try:
            return self.corpus.read(ref)
        except (spaf_data.InputError, OSError) as error:
            raise BadShardError(f"The shard {ref.shard} of {self.corpus.path} cannot be read: {error}") from error

    def _nothing(self) -> TokenisedCells[Any]:
        """Return no cells, as the family reads them."""
        return self.tokeniser(slide_counts([], self.token_of_gene, self._measured))

    def _tokenise(self, blocks: list[Block], places: list[int]) -> Cells:
        def joined_indptr(pointers: list[NDArray[np.int64]]) -> NDArray[np.int64]:
            return np.concatenate([[0], np.cumsum(np.concatenate([np.diff(pointer) for pointer in pointers]))])

        def of_blocks(values: list[Any]) -> NDArray[Any]:
            return np.concatenate([np.full(block.n_cells, value) for block, value in zip(blocks, values, strict=True)])

        if not self._knows_slides:
            assert isinstance(self.tokeniser, KnowsSlides)
            self.tokeniser, self._knows_slides = self.tokeniser.knowing(self._slides()), True
        indptr = joined_indptr([block.indptr for block in blocks])
        tokens = self.token_of_gene[np.concatenate([block.genes for block in blocks])]
        counts = np.concatenate([block.counts for block in blocks])
        context = np.concatenate([np.broadcast_to(self._context[block.slide], (block.n_cells, 4)) for block in blocks])
        slide = of_blocks([self._number_of_slide[block.slide] for block in blocks])
        own = np.concatenate([np.arange(block.n_cells) for block in blocks])
        is_owned = own < of_blocks([block.n_owned for block in blocks])
        return Cells(
            indptr=indptr,
            tokens=tokens,
            counts=counts,
            measured=self._measured,
            panels=self._panels,
            tokenised=self.tokeniser(
                cell_counts(indptr, tokens, counts, self._measured, context=context, slides=slide, panels=self._panels)
            ),
            context=context,
            edge_indptr=joined_indptr([block.colocalized_indptr for block in blocks]),
            edges=self.token_of_gene[np.concatenate([block.colocalized for block in blocks])],
            has_edges=of_blocks([self.corpus.knows_gene_pairs(block.slide) for block in blocks]),
            coordinates=np.concatenate([block.coordinates for block in blocks]),
            slide=slide,
            number=np.where(is_owned, of_blocks([self._first_of_block[place] for place in places]) + own, -1),
            group=of_blocks(list(range(len(blocks)))),
            reach={number: self._halos.reach(block.slide) for number, block in enumerate(blocks)},
        )

    def _build(self, window: _Drawn, epoch: int, number: int, batch: int) -> Batch:
        sequence = np.random.SeedSequence([self.seed, epoch, number, batch, 3])
        network_seed, seed, draw_seed = (int(word) for word in sequence.generate_state(3, np.uint64) >> np.uint64(1))
        inputs, parts = window.batches[batch]
        rows = np.concatenate([inputs.left, inputs.right]) if self.sampler.cells_per_input == 2 else inputs.left
        # What is drawn of a cell does not depend on the part that it is in.
        tokenised, rows = self._draw_cells(window.cells, rows, np.random.default_rng(draw_seed))
        n, order = len(inputs), np.concatenate(parts) if parts else np.arange(len(inputs))
        tokens: TrainableBatch
        if self.sampler.cells_per_input == 2:
            assert isinstance(tokenised, ReadsPairs), "refused at the beginning"
            tokens = tokenised.pair_batch(rows[order], rows[n + order])
        else:
            tokens = tokenised.batch(rows[order])
        inputs = inputs.take(order)
        draw = Draw(tokens, inputs, window.cells, self.vocabulary, self.distances, seed)
        targets, read = {}, tokens
        for objective_name, objective in self.asked.items():
            targets[objective_name] = objective.targets(draw)
            read = objective.hide(read, targets[objective_name])
        return Batch(
            f"batch {batch} of {window.name}", network_seed, tokens, read, targets, tuple(part.size for part in parts)
        )

    def _draw_cells(
        self, cells: Cells, rows: NDArray[np.int64], generator: np.random.Generator
    ) -> tuple[TokenisedCells[Any], NDArray[np.int64]]:
        """Return cells as the family reads them after the random changes that are asked for, and the rows in them."""
        dropout, sampling = self.sampling.context_dropout, self.sampling
        if dropout == 0.0 and sampling.thinning == 0.0 and sampling.panel_min == 1.0:
            return cells.tokenised, rows
        context = cells.context[rows]
        if dropout > 0.0:
            context = np.where(generator.random(context.shape) < dropout, self._unknown, context)
        if sampling.thinning == 0.0 and sampling.panel_min == 1.0 and isinstance(cells.tokenised, InContext):
            return cells.tokenised.in_context(rows, context), np.arange(rows.size)
        changed = drawn_counts(
            cells, rows, context, generator, thinning=sampling.thinning, panel_min=sampling.panel_min
        )
        return self.tokeniser(changed), np.arange(rows.size)
