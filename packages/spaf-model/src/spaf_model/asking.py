"""What a model may be asked beyond embedding, by small protocols; a family that lacks one says so in a sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from numpy.typing import NDArray

from spaf_model.errors import InputError
from spaf_model.family import family_of
from spaf_model.shipped import shipped_family, shipped_models

if TYPE_CHECKING:
    import numpy as np

    from spaf_model.counts import CellCounts
    from spaf_model.inputs import Cells, CellTables
    from spaf_model.model import Model
    from spaf_model.pairs import CellNames
    from spaf_model.results import GeneAttention, HiddenGenes, PairEmbeddings, PerturbedPair


@runtime_checkable
class EmbedsPairs(Protocol):
    """A model that says of two cells how likely they are neighbours."""

    def embed_pairs(self, adata: Cells, left: CellNames, right: CellNames, **options: Any) -> PairEmbeddings:
        """Embed pairs of cells; swapping the two changes nothing."""
        ...


@runtime_checkable
class ScoresPairs(Protocol):
    """A model of which pairs of cells can be asked again and again: what judging needs of it."""

    def pair_scorer(
        self, cells: CellCounts, /, states: NDArray[np.float32] | None = None
    ) -> Callable[[NDArray[np.integer], NDArray[np.integer]], NDArray[np.float64]]:
        """Return the probability that two cells are neighbours, as a function of their positions.

        The cells are all of their slides where the model reads whole slides (`Model.reads_whole_slides`); `states` are
        their embeddings by the first method, where they are known.
        """
        ...


@runtime_checkable
class NamesHiddenGenes(Protocol):
    """A model that says which genes were hidden from it."""

    def name_hidden_genes(self, cells: CellCounts, hidden: NDArray[np.bool_], /) -> HiddenGenes:
        """Hide entries of the counts, (n_entries,), and ask which genes they were."""
        ...


@runtime_checkable
class RanksGenePairs(Protocol):
    """A model that ranks pairs of genes by whether they lie together in a cell."""

    def gene_pair_logits(
        self, cells: CellCounts, of_cell: NDArray[np.int64], first: NDArray[np.int64], second: NDArray[np.int64], /
    ) -> NDArray[np.float64]:
        """Return the logit of each pair of genes, by tokens, of a cell that has both; NaN for a gene that is not read.

        A pair has no order: swapping `first` and `second` changes nothing.
        """
        ...


@runtime_checkable
class PredictsColocalization(Protocol):
    """A model that says which genes lie together in a cell."""

    def predict_colocalization(self, adata: CellTables, threshold: float = 0.7, **options: Any) -> None:
        """Write the pairs of genes into ``obsm`` and ``uns``, as `spaf_data.colocalize` writes measured ones."""
        ...


@runtime_checkable
class ShowsAttention(Protocol):
    """A model in which genes attend to genes."""

    def attention(
        self, adata: Cells, pairs: Any, layers: Any = None, heads: Any = None, **options: Any
    ) -> GeneAttention:
        """Average the attention from gene to gene, between and within the two cells of pairs."""
        ...


@runtime_checkable
class PerturbsPairs(Protocol):
    """A model whose score of two cells can be asked again with genes of either changed."""

    @property
    def compares_states(self) -> bool:
        """Whether all pairs of genes of two cells cost no reading beyond those of their single genes."""
        ...

    def perturb_pairs(self, adata: Cells, left: CellNames, right: CellNames, **options: Any) -> Iterator[PerturbedPair]:
        """Yield pairs of cells in their order, each with what single genes and pairs of genes change."""
        ...


@runtime_checkable
class ReadsWithoutGenes(Protocol):
    """A model that can read cells as if some of their genes were not there."""

    def without_genes(self, adata: Cells, genes: Sequence[str], **options: Any) -> NDArray[np.float32]:
        """Return the embeddings (n_cells, width) of cells without the genes."""
        ...


@runtime_checkable
class PredictsExpression(Protocol):
    """A model that predicts counts of genes."""

    def expression(self, adata: Cells, genes: Sequence[str], **options: Any) -> NDArray[np.float32]:
        """Return the expected counts (n_cells, n_genes) of genes, measured or not."""
        ...


_WORDS: dict[type, str] = {
    EmbedsPairs: "tell whether two cells are neighbours",
    ScoresPairs: "tell whether two cells are neighbours",
    NamesHiddenGenes: "name genes that were hidden from it",
    RanksGenePairs: "rank pairs of genes by whether they lie together in a cell",
    PredictsColocalization: "tell which genes lie together in a cell",
    ShowsAttention: "show attention between genes",
    PerturbsPairs: "score two cells again without some of their genes",
    ReadsWithoutGenes: "read cells without some of their genes",
    PredictsExpression: "predict the counts of genes",
}
AskedT = TypeVar("AskedT")


def asked(model: Model[Any, Any], what: type[AskedT]) -> AskedT:
    """Return a model as one that can be asked something, such as `EmbedsPairs`.

    Raises
    ------
    InputError
        If its family cannot; the sentence says what is missing.
    """
    if not isinstance(model, what):
        words = _WORDS.get(what, f"do what {what.__name__} asks")
        raise InputError(
            f"The model {model.source} cannot {words}: its family {model.family!r} has no such output{_who_can(what)}."
        )
    return model


def _who_can(what: type) -> str:
    """Say which models that come with the package can be asked something; empty if none can."""
    names = [name for name in dir(what) if not name.startswith("_")]
    able = [m for m in shipped_models() if all(hasattr(family_of(shipped_family(m)), name) for name in names)]
    return f"; of the models that come with spaf-model, {', '.join(able)} can" if able else ""
