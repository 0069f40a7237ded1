"""What the card of a model says of its fine-tuning for labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from spaf_train.evaluation.bootstrap import ENOUGH_TILES
from spaf_train.finetuning.label_probe import EMBEDDING, READS
from spaf_train.finetuning.result import card_section, how_tuned
from spaf_train.finetuning.training import Fit

if TYPE_CHECKING:
    import pandas as pd

    from spaf_train.finetuning.labelled_cells import LabelledCells

LABEL_MEASURES = {"macro_f1": "macro-F1", "balanced_accuracy": "balanced accuracy", "accuracy": "accuracy"}
_WORDS = {"better": "above", "worse": "below", "tied": "not to be told from", "unknown": "not judged against"}


def label_card(
    record: Mapping[str, Any], labels: LabelledCells, scores: pd.DataFrame, differences: pd.DataFrame
) -> str:
    """Return the section of the card."""
    n_cells = ", ".join(f"{n:,} {part}" for part, n in record["n_cells"].items())
    facts = [
        *_method(record),
        f"Classes: {', '.join(labels.classes)}",
        f"Cells: {n_cells}; divided by {labels.divided_by}",
        "Baselines, scaling and every choice were made on the training cells alone",
        *difference_sentences(differences),
    ]
    if labels.left_out:
        facts.append(f"Left out as too rare: {', '.join(labels.left_out)}")
    keys = {"part": "part", "score": "by"}
    return card_section(f"Fine-tuned for labels: {labels.label}", facts, scores, keys, LABEL_MEASURES)


def _method(record: Mapping[str, Any]) -> list[str]:
    head, parameters = record["head"], record["parameters"]
    facts = []
    if record["kept"] == "probe":
        chosen = head["on_folds"][head["reads"]]
        balance = "classes balanced" if chosen["balanced"] else "classes as they are"
        facts.append(
            f"Method: probe; the encoder is unchanged. The head is a logistic regression on {READS[head['reads']]}, "
            f"penalty {chosen['penalty']:g}, {balance}"
        )
        if head["reads"] not in ("both", EMBEDDING):
            facts.append("The embedding did not improve on log counts on folds of the training cells: it is not read")
    else:
        facts += how_tuned(record["kept"], parameters, Fit(**record["fit"]))
        facts.append(
            "The heads for masked genes, cell pairs and co-localised genes were not trained along, so they no longer "
            "fit the encoder"
        )
    return facts + [record["decision"].rstrip(".")] * bool(record["decision"])


def difference_sentences(differences: pd.DataFrame) -> list[str]:
    """Say of each part and baseline what the paired interval of macro-F1 allows."""
    sentences = []
    for part, rows in differences.groupby("part", sort=False):
        n_tiles = int(rows["n_tiles"].iloc[0])
        words = [
            f"{_WORDS[row['verdict']]} {row['baseline']} ({row['macro_f1']:+.3f}, {row['macro_f1_low']:+.3f} to "
            f"{row['macro_f1_high']:+.3f})"
            for row in rows.to_dict("records")
        ]
        few = f"; {n_tiles} tiles are too few for a verdict" if n_tiles < ENOUGH_TILES else ""
        sentences.append(f"Macro-F1 on the {part} cells is {'; '.join(words)}{few}")
    return sentences
