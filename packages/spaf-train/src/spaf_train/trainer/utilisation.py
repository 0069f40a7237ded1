"""How much of the time of a step is spent waiting, and how much of a processor's peak is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spaf_model import Network
    from spaf_train.objectives import ObjectiveSet
    from spaf_train.stream.batch import Batch

# Backward takes twice what forward takes.
_FORWARD_AND_BACKWARD = 3


class TrainingOperations:
    """Floating-point operations that training a network on a batch takes, padding and recomputed layers not counted.

    Counted are what the family says of its encoder (`Network.operations`: matrices, and attention among the tokens of
    each input), and what each objective says of its head; norms, gates and small heads are left out (the convention of
    model FLOP utilisation, Chowdhery et al. 2022, "PaLM: scaling language modeling with pathways", appendix B).
    """

    def __init__(self, network: Network[Any], objectives: ObjectiveSet) -> None:
        self._network = network
        self._asked = objectives.make()

    def count(self, batch: Batch) -> float:
        """Return the operations of a batch, forward and backward."""
        of_heads = sum(asked.operations(self._network, batch.targets[name]) for name, asked in self._asked.items())
        return _FORWARD_AND_BACKWARD * self._network.operations(batch.unmasked) + of_heads


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
