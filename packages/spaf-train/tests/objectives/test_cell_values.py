import numpy as np
import pytest
import torch


def test_answers_are_the_counts_of_the_cells_that_are_asked(spots, draw_of):
    _, stream = spots("objectives.cell_values.genes=10")
    for draw in draw_of(stream):
        targets = stream.asked["cell_values"].targets(draw)
        assert targets.ids.numel() == 10
        counts = draw.cells.take(draw.inputs.left[targets.rows.numpy()]).matrix().toarray()
        np.testing.assert_array_equal(targets.counts.numpy(), counts[:, targets.ids.numpy()])
        panel = draw.cells.panels[draw.cells.slide[draw.inputs.left[0]]]
        np.testing.assert_array_equal(targets.is_asked.numpy().all(axis=0), panel[targets.ids.numpy()])
        assert targets.rows.tolist() == np.flatnonzero(draw.inputs.asked).tolist()


def test_elastic_similarity_agrees_with_a_slow_sum(spots):
    model, stream = spots("objectives.elastic_similarity.enabled=true", "objectives.elastic_similarity.threshold=0.4")
    batch = next(iter(stream.one_epoch()))
    targets = batch.targets["elastic_similarity"]
    with torch.no_grad():
        hidden = model.network.encode(batch.masked)
        found = stream.asked["elastic_similarity"].loss(model.network, hidden, targets, batch.masked)
        states = model.network.pool(hidden, batch.masked, "cls")[targets.rows].double().numpy()
    expected = 0.0
    for i, one in enumerate(states):
        for j, other in enumerate(states):
            if i != j:
                cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
                expected += 1 - (max(cosine, 0) - 0.4) ** 2
    assert float(found.sum) == pytest.approx(expected, rel=1e-4)
    assert targets.weight == len(states) * (len(states) - 1)
