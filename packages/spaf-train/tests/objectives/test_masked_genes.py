import pytest
import torch

from spaf_model import InputError
from spaf_train.objectives import MaskedGenesConfig, mask_genes, masked_genes_loss


@pytest.fixture
def batch(make_stream):
    return next(make_stream(token_budget=20_000, grouping=4096).one_epoch()).unmasked


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_shares_are_as_configured(batch, vocabulary):
    counts = torch.zeros(4)
    for seed in range(30):
        masked, target = mask_genes(batch, vocabulary, MaskedGenesConfig(), generator(seed))
        now = masked.ids.flatten()[target.positions]
        assert torch.equal(batch.ids.flatten()[target.positions], target.targets)
        changed = (masked.ids != batch.ids).flatten().nonzero().squeeze(1)
        assert set(changed.tolist()) <= set(target.positions.tolist())
        is_mask = now == vocabulary.mask
        counts += torch.tensor(
            [now.numel(), is_mask.sum(), (now == target.targets).sum(), (~is_mask & (now != target.targets)).sum()]
        )
    genes = torch.isin(batch.ids, torch.from_numpy(vocabulary.gene_token_ids)).sum() * 30
    chosen, hidden, kept, replaced = counts.tolist()
    n_genes = vocabulary.gene_token_ids.size
    assert chosen / genes == pytest.approx(0.15, abs=0.01)
    assert hidden / chosen == pytest.approx(0.8, abs=0.02)
    # One random gene in n_genes is the one that stood there.
    assert kept / chosen == pytest.approx(0.1 + 0.1 / n_genes, abs=0.015)
    assert replaced / chosen == pytest.approx(0.1 * (1 - 1 / n_genes), abs=0.015)


def test_only_genes_are_masked_unless_context_is_included(batch, vocabulary):
    _, target = mask_genes(batch, vocabulary, MaskedGenesConfig(fraction=0.9), generator())
    assert torch.isin(target.targets, torch.from_numpy(vocabulary.gene_token_ids)).all()
    _, target = mask_genes(batch, vocabulary, MaskedGenesConfig(fraction=0.9, include_context=True), generator())
    assert (~torch.isin(target.targets, torch.from_numpy(vocabulary.gene_token_ids))).any()
    special = torch.tensor([vocabulary.pad, vocabulary.cls, vocabulary.sep, vocabulary.mask])
    assert not torch.isin(target.targets, special).any()


def test_same_generator_same_mask_and_input_untouched(batch, vocabulary):
    before = batch.ids.clone()
    first = mask_genes(batch, vocabulary, MaskedGenesConfig(), generator(5))
    second = mask_genes(batch, vocabulary, MaskedGenesConfig(), generator(5))
    assert torch.equal(first[0].ids, second[0].ids)
    assert torch.equal(batch.ids, before)


def test_a_tiny_fraction_still_masks_one_gene(batch, vocabulary):
    _, target = mask_genes(batch, vocabulary, MaskedGenesConfig(fraction=1e-9), generator())
    assert target.positions.numel() == 1


def test_loss_by_hand():
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    loss, found = masked_genes_loss(logits, torch.tensor([0, 2]))
    expected = -(2.0 - torch.log(torch.exp(torch.tensor(2.0)) + 2)) + torch.log(torch.exp(torch.tensor(1.0)) + 2)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert found.item() == 1


def test_shares_beyond_one_are_refused():
    with pytest.raises(InputError, match="mask_share and random_share"):
        MaskedGenesConfig(mask_share=0.9, random_share=0.2)
