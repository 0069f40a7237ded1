import numpy as np

from spaf_data import write_corpus

IDS = [f"ENSG{number:011d}" for number in range(4)]


def test_a_corpus_is_of_genes_whatever_the_slides_call_them(tmp_path, make_slide):
    symbols = ["A", "B", "C", "D"]
    first = make_slide("first", 200, genes=symbols)
    first.var["gene_ids"] = IDS
    second = make_slide("second", 150, seed=1, genes=[f"{IDS[2]}.4", "NEW", IDS[0], "B"], split="validation")
    corpus = write_corpus([first, second], tmp_path / "corpus")
    assert corpus.genes == [*symbols, "NEW"]
    assert corpus.gene_ids == [*IDS, ""]
    (ref,) = [ref for ref in corpus.block_refs() if ref.slide == "second"]
    block = corpus.read(ref)
    for gene, column in (("A", IDS[0]), ("B", "B"), ("C", f"{IDS[2]}.4"), ("NEW", "NEW"), ("D", None)):
        counted = block.counts[block.genes == corpus.genes.index(gene)].sum()
        assert counted == (0 if column is None else second[:, column].X.sum())
    account = corpus.manifest.slides
    assert (account["first"]["n_genes_renamed"], account["second"]["n_genes_renamed"]) == (0, 2)
    assert account["second"]["genes_added_up"] == {}


def test_counts_and_gene_pairs_of_two_columns_of_one_gene_become_one(tmp_path, make_slide):
    slide = make_slide("one", 80, genes=["A", "A too", "B", "C"], split="train")
    slide.var["gene_ids"] = [IDS[0], f"{IDS[0]}.2", IDS[1], IDS[2]]
    corpus = write_corpus([slide], tmp_path / "corpus")
    assert corpus.genes == ["A", "B", "C"]
    assert corpus.manifest.slides["one"]["genes_added_up"] == {"A": ["A", "A too"]}
    block = corpus.read(corpus.block_refs("train")[0])
    pairs = slide.uns["colocalization"]["pairs"]
    flags = slide.obsm["colocalization"].toarray() > 0
    same = {"A": 0, "A too": 0, "B": 1, "C": 2}
    for cell, name in enumerate(block.cell_ids[: block.n_owned]):
        row = slide.obs_names.get_loc(name)
        entries = slice(block.indptr[cell], block.indptr[cell + 1])
        counts = np.zeros(3, int)
        counts[block.genes[entries]] = block.counts[entries]
        a, too, b, c = slide.X[row].toarray()[0]
        assert counts.tolist() == [a + too, b, c]
        wanted = {
            tuple(sorted((same[x], same[y])))
            for x, y in pairs[flags[row]].itertuples(index=False)
            if same[x] != same[y]
        }
        part = slice(block.colocalized_indptr[cell], block.colocalized_indptr[cell + 1])
        assert {tuple(pair) for pair in block.colocalized[part].tolist()} == wanted
