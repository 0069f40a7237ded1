"""How much of the time of a step is spent waiting, and how much of a processor's peak is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spaf_model import SpatialFormerNetwork
    from spaf_train.objectives import ObjectiveSet
    from spaf_train.stream.batch import Batch

# A multiplication and an addition for each weight forward, and twice that backward.
_OPERATIONS_PER_WEIGHT = 6


class TrainingOperations:
    """Floating-point operations that training a network on a batch takes, padding and recomputed layers not counted.

    Counted are the matrices of the layers, attention among the tokens of each input, and what each objective says of
    its head (that over the vocabulary); norms, gates and small heads are left out (the convention of model FLOP
    utilisation, Chowdhery et al. 2022, "PaLM: scaling language modeling with pathways", appendix B).
    """

    def __init__(self, network: SpatialFormerNetwork, objectives: ObjectiveSet) -> None:
        self._network = network
        self._asked = objectives.make()
        weights = sum(parameter.numel() for parameter in network.layers.parameters() if parameter.ndim >= 2)
        self._per_token = _OPERATIONS_PER_WEIGHT * weights
        # Scores and their products with the values, each 2 L D forward for a token.
        self._per_pair_of_tokens = 3 * 4 * network.config.width * network.config.n_layers

    def count(self, batch: Batch) -> float:
        """Return the operations of a batch, forward and backward."""
        lengths = batch.unmasked.lengths.sum(dim=1)
        of_heads = sum(asked.operations(self._network, batch.targets[name]) for name, asked in self._asked.items())
        pairs_of_tokens = float(lengths.square().sum())
        return self._per_token * batch.n_tokens + self._per_pair_of_tokens * pairs_of_tokens + of_heads


def describe_step(
    loss: float, *, n_tokens: float, seconds: float, waited: float, operations: float, peak_tflops: float
) -> str:
    """Say in a few words how a step went.

    Parameters
    ----------
    loss
        Of the step.
    n_tokens, operations
        Of the step, over all processes.
    seconds, waited
        Of the step on this process, and its part until the batches were there.
    peak_tflops
        Of all processors together, in 10^12 operations a second; 0 if it is not known.
    """
    words = [f"loss {loss:.3f}", f"{n_tokens / seconds:,.0f} tokens/s", f"waiting for data {waited / seconds:.0%}"]
    if peak_tflops > 0.0:
        words.append(f"{operations / seconds / (peak_tflops * 1e12):.1%} of peak")
    return "  ".join(words)
