"""What ``run.compile`` brings to a training step on one core of a CPU, and what it costs before the first.

``python benchmarks/compiled_step.py CORPUS`` takes the first steps of the preset ``small`` on a corpus that
``spaf-data build`` wrote, plain and compiled, the same batches in turns: masking excepted, everything of a step from
the batch to AdamW. Steps are in processor seconds of this process, which has one thread; compilation, whose C++
compiler is a process of its own, in seconds by the clock.
"""

import argparse
import os
import statistics
import time
from pathlib import Path

import torch
from _machine import describe, write_results

from spaf_data import Corpus
from spaf_model import SpatialFormer
from spaf_train import BatchStream, TrainingModule, make_optimizer, read_config, vocabulary_from_corpus
from spaf_train.trainer.compiling import compile_blocks


def step(module: TrainingModule, optimizer: torch.optim.Optimizer, batch, factors: dict[str, float]) -> float:
    """Take a step and return its loss."""
    module.train()
    optimizer.zero_grad(set_to_none=True)
    torch.manual_seed(batch.seed)
    total, _ = module(batch, batch.weights(), factors, 1.0)
    total.backward()
    torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    optimizer.step()
    return total.item()


def main() -> None:
    """Measure in turns, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--steps", type=int, default=40)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = read_config("small")
    corpus = Corpus(arguments.corpus)
    vocabulary = vocabulary_from_corpus(corpus)
    stream = BatchStream(
        corpus, SpatialFormer(config.model, vocabulary), config.sampling, config.objectives, split="train", seed=0
    )
    factors = config.objectives.factors(0.0)
    modules = [
        TrainingModule(SpatialFormer(config.model, vocabulary, seed=0).network, config.objectives) for _ in range(2)
    ]
    compile_blocks(modules[1].network)
    optimizers = [make_optimizer(module, config.optimizer) for module in modules]
    first_step = []
    seconds: list[list[float]] = [[], []]
    difference = 0.0
    for number in range(arguments.steps + 1):
        (batch,) = stream.next_step()
        losses = []
        for which, (module, optimizer) in enumerate(zip(modules, optimizers, strict=True)):
            clock, start = time.perf_counter(), time.process_time()
            losses.append(step(module, optimizer, batch, factors))
            if number == 0:
                first_step.append(time.perf_counter() - clock)
            else:
                seconds[which].append(time.process_time() - start)
        difference = max(difference, abs(losses[1] - losses[0]) / abs(losses[0]))
    plain, compiled = (statistics.median(times) for times in seconds)
    results = {
        "machine": describe("spaf-train", "spaf-model", "torch"),
        "load_average": os.getloadavg()[0],
        "preset": "small",
        "steps": arguments.steps,
        "plain_step_seconds": plain,
        "compiled_step_seconds": compiled,
        "ratio": plain / compiled,
        "ratio_of_each_step_quartiles": statistics.quantiles(
            [one / other for one, other in zip(*seconds, strict=True)], n=4
        ),
        "first_step_seconds": {"plain": first_step[0], "compiled": first_step[1]},
        "largest_relative_difference_of_losses": difference,
    }
    for name, value in results.items():
        print(f"{name:>38}: {value:,.4g}" if isinstance(value, int | float) else f"{name:>38}: {value}")
    write_results("compiled_step", results)


if __name__ == "__main__":
    main()
