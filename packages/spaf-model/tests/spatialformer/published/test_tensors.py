import torch

from spaf_model.spatialformer.published.tensors import part_major


def test_rows_of_qkv_move_with_their_meaning() -> None:
    n_heads, head_dim = 3, 2
    rows = [(head, part, dim) for head in range(n_heads) for part in "qkv" for dim in range(head_dim)]
    expected = [(head, part, dim) for part in "qkv" for head in range(n_heads) for dim in range(head_dim)]
    order = part_major(torch.arange(len(rows)), n_heads)
    assert [rows[row] for row in order.tolist()] == expected
    weight = torch.randn(len(rows), 4)
    torch.testing.assert_close(part_major(weight, n_heads), weight[order])
