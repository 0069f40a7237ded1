"""The vocabulary: what the ids of a model mean, and how a data set's genes find theirs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spaf_model._files import read_json_object, replace_file
from spaf_model.errors import InputError
from spaf_model.gene_identity import are_other_genes, ensembl_id, id_of, plain_id, without_genome
from spaf_model.gene_match import GeneMatch

CONTEXT_KINDS = ("condition", "tissue", "species", "assay")  # in the order of the columns of context ids, and of tokens
_LISTED = ("tissue", "condition", "species", "assay")  # in the order in which people are told of them
UNKNOWN = "unknown"
FORMAT_VERSION = 1
_SPECIAL = ("pad", "cls", "mask", "sep")  # of a vocabulary that `Vocabulary.build` makes


class Vocabulary:
    """Tokens of a model: special, context and gene tokens, with the scale that genes are ranked by.

    `Vocabulary.build` makes one for a new model and `Vocabulary.load` reads one; the constructor takes the parts, as an
    importer of a published checkpoint has them, and keeps every id.

    Parameters
    ----------
    tokens
        Text of each token, unique; a token's id is its position.
    special
        Ids of the special tokens by name, such as ``pad``, ``cls``, ``mask`` and ``sep``; which a model needs, its
        family says.
    context
        For each of the kinds tissue, condition, species and assay: name -> id.
    scale
        What counts are divided by for ranking, one per token, above 0; 1 for tokens that are not genes.
    gene_ids
        Ensembl id of each token ("" where there is none), or None.

    Raises
    ------
    InputError
        If tokens repeat, an id is out of range or used twice, or a scale is not above 0.
    """

    def __init__(
        self,
        tokens: Sequence[str],
        *,
        special: Mapping[str, int],
        context: Mapping[str, Mapping[str, int]],
        scale: NDArray[Any] | Sequence[float],
        gene_ids: Sequence[str] | None = None,
    ) -> None:
        self.tokens = [str(token) for token in tokens]
        self.n_tokens = len(self.tokens)
        self.scale: NDArray[np.float32] = np.asarray(scale, dtype=np.float32)
        self.special = {str(name): int(token) for name, token in special.items()}
        self.context = {
            kind: {str(name): int(token) for name, token in context.get(kind, {}).items()} for kind in _LISTED
        }
        self.gene_ids = None if gene_ids is None else [str(gene) for gene in gene_ids]
        self._check(context)
        is_gene = np.ones(self.n_tokens, dtype=bool)
        is_gene[self._reserved()] = False
        self.gene_token_ids: NDArray[np.int64] = np.flatnonzero(is_gene).astype(np.int64)
        self._symbol_tokens: dict[str, int] = {}
        for token, symbol in zip(
            self.gene_token_ids, without_genome([self.tokens[token] for token in self.gene_token_ids]), strict=True
        ):
            self._symbol_tokens.setdefault(symbol, int(token))
        self._id_tokens: dict[str, int] = {}
        if self.gene_ids is not None:
            for token in self.gene_token_ids:
                if self.gene_ids[token]:
                    self._id_tokens.setdefault(
                        ensembl_id(self.gene_ids[token]) or plain_id(self.gene_ids[token]), int(token)
                    )
        for token in self.gene_token_ids:
            if name := ensembl_id(self.tokens[token]):
                self._id_tokens.setdefault(name, int(token))

    @property
    def pad(self) -> int:
        """Id of the token of padding."""
        return self.special_id("pad")

    @property
    def cls(self) -> int:
        """Id of the token that stands for the whole input."""
        return self.special_id("cls")

    @property
    def mask(self) -> int:
        """Id of the token in place of a hidden gene."""
        return self.special_id("mask")

    @property
    def sep(self) -> int:
        """Id of the token at the end of a cell."""
        return self.special_id("sep")

    def special_id(self, name: str) -> int:
        """Return the id of a special token.

        Raises
        ------
        InputError
            If the vocabulary has no such token; the sentence lists those it has.
        """
        if name not in self.special:
            raise InputError(
                f"The vocabulary has no special token {name!r}; it has: {', '.join(self.special) or 'none'}."
            )
        return self.special[name]

    def _reserved(self) -> list[int]:
        return [*self.special.values(), *(token for names in self.context.values() for token in names.values())]

    def _check(self, context: Mapping[str, Mapping[str, int]]) -> None:
        repeated = [token for token, count in Counter(self.tokens).items() if count > 1]
        if repeated:
            raise InputError(f"Each token must be unique; {repeated[0]!r} occurs more than once.")
        if not set(context) <= set(CONTEXT_KINDS):
            raise InputError(f"context has the kinds {', '.join(_LISTED)}, not {', '.join(context)}.")
        reserved = self._reserved()
        outside = [token for token in reserved if not 0 <= token < self.n_tokens]
        if outside:
            raise InputError(f"Token id {outside[0]} is outside the {self.n_tokens} tokens.")
        repeated_ids = [token for token, count in Counter(reserved).items() if count > 1]
        if repeated_ids:
            raise InputError(f"Token id {repeated_ids[0]} has more than one meaning.")
        if self.scale.shape != (self.n_tokens,):
            raise InputError(f"scale must have one value per token ({self.n_tokens}), not shape {self.scale.shape}.")
        bad = np.flatnonzero(~(np.isfinite(self.scale) & (self.scale > 0)))
        if bad.size:
            raise InputError(f"scale must be above 0; token {self.tokens[bad[0]]!r} has {self.scale[bad[0]]}.")
        if self.gene_ids is not None and len(self.gene_ids) != self.n_tokens:
            raise InputError(f"gene_ids must have one value per token ({self.n_tokens}), not {len(self.gene_ids)}.")

    @classmethod
    def build(
        cls,
        genes: Sequence[str],
        *,
        scale: NDArray[Any] | Sequence[float],
        gene_ids: Sequence[str] | None = None,
        tissue: Iterable[str] = (),
        condition: Iterable[str] = (),
        species: Iterable[str] = (),
        assay: Iterable[str] = (),
        unknown: Collection[str] = CONTEXT_KINDS,
    ) -> Vocabulary:
        """Make a vocabulary for a new model.

        Tokens are laid out as special, context (each kind begins with its ``unknown``), genes in the order given. Names
        of context are sorted, so that the order in which slides were seen does not matter.

        Parameters
        ----------
        genes
            Gene symbols, unique.
        scale
            What each gene's counts are divided by for ranking, one per gene, above 0.
        gene_ids
            Ensembl ids of the genes, or None.
        tissue, condition, species, assay
            Names that get a token beside ``unknown``.
        unknown
            Kinds that have a token for what is not known: those for which the model is trained on it.

        Examples
        --------
        >>> vocabulary = Vocabulary.build(["EPCAM", "CD4"], scale=[2.0, 1.0], tissue=["Breast"])
        >>> vocabulary.tokens[vocabulary.context_id("tissue", "Breast")]
        'tissue:Breast'
        """
        if len(genes) == 0:
            raise InputError("A vocabulary needs at least one gene.")
        if len(scale) != len(genes):
            raise InputError(f"scale must have one value per gene ({len(genes)}), not {len(scale)}.")
        if gene_ids is not None and len(gene_ids) != len(genes):
            raise InputError(f"gene_ids must have one value per gene ({len(genes)}), not {len(gene_ids)}.")
        tokens = [f"[{name.upper()}]" for name in _SPECIAL]
        special = {name: position for position, name in enumerate(_SPECIAL)}
        context: dict[str, dict[str, int]] = {}
        names_of = {"condition": condition, "tissue": tissue, "species": species, "assay": assay}
        for kind in CONTEXT_KINDS:
            names = [UNKNOWN] if kind in unknown else []
            names += sorted({str(name) for name in names_of[kind]} - {UNKNOWN})
            context[kind] = {name: len(tokens) + position for position, name in enumerate(names)}
            tokens.extend(f"{kind}:{name}" for name in names)
        n_before = len(tokens)
        return cls(
            [*tokens, *genes],
            special=special,
            context=context,
            scale=np.concatenate([np.ones(n_before, dtype=np.float32), np.asarray(scale, dtype=np.float32)]),
            gene_ids=None if gene_ids is None else [*[""] * n_before, *gene_ids],
        )

    @classmethod
    def of_genes(cls, genes: Sequence[str], gene_ids: Sequence[str] | None = None) -> Vocabulary:
        """Make a vocabulary of genes alone, for a model without sequences: a gene's token is its position.

        Examples
        --------
        >>> Vocabulary.of_genes(["EPCAM", "CD4"]).gene_token_ids
        array([0, 1])
        """
        if len(genes) == 0:
            raise InputError("A vocabulary needs at least one gene.")
        return cls(genes, special={}, context={}, scale=np.ones(len(genes), dtype=np.float32), gene_ids=gene_ids)

    def context_id(self, kind: str, name: str) -> int:
        """Return the token id of a tissue, condition, species or assay.

        Upper and lower case are not told apart unless two names differ by nothing else.

        Raises
        ------
        InputError
            If the kind or the name is not known; the sentence lists the known ones.
        """
        if kind not in self.context:
            raise InputError(f"Unknown kind of context {kind!r}; the kinds are: {', '.join(_LISTED)}.")
        names = self.context[kind]
        if name in names:
            return names[name]
        similar = [known for known in names if known.lower() == str(name).lower()]
        if len(similar) == 1:
            return names[similar[0]]
        raise InputError(f"The model knows no {kind} {str(name)!r}; it knows: {', '.join(names) or 'none'}.")

    def look_up(self, symbols: Sequence[str], gene_ids: Sequence[str] | None = None) -> GeneMatch:
        """Find the token of each gene of a data set, however few there are.

        A gene is looked up by its Ensembl id where both sides have one (without the version), else by its symbol; a
        symbol that both sides give to other ids is no match.

        Parameters
        ----------
        symbols
            Gene symbols of the input; may also be Ensembl ids.
        gene_ids
            Ensembl ids of the input, or None.
        """
        names = [str(symbol) for symbol in symbols]
        plain = without_genome(names)
        ids = [""] * len(names) if gene_ids is None else without_genome([str(gene_id) for gene_id in gene_ids])
        token_ids = np.full(len(names), -1, dtype=np.int64)
        matched: list[str] = []
        unmatched: list[str] = []
        duplicated: list[str] = []
        joined: list[str] = []
        taken: set[int] = set()
        seen: set[tuple[str, str]] = set()
        for position, name in enumerate(names):
            gene_id = ids[position]
            token = self._token_of(plain[position], gene_id)
            if token is None:
                unmatched.append(name)
            elif (name, gene_id) in seen:
                duplicated.append(name)
            else:
                token_ids[position] = token
                (joined if token in taken else matched).append(name)
                taken.add(token)
            seen.add((name, gene_id))
        return GeneMatch(
            token_ids=token_ids, matched=matched, unmatched=unmatched, duplicated=duplicated, joined=joined,
            n_known=self.gene_token_ids.size,
        )  # fmt: skip

    def _token_of(self, name: str, gene_id: str) -> int | None:
        known_as = id_of(name, gene_id)
        token = self._id_tokens.get(known_as or plain_id(gene_id))
        if token is not None:
            return token
        token = self._symbol_tokens.get(name)
        if token is None or self.gene_ids is None:
            return token
        return None if are_other_genes(known_as, ensembl_id(self.gene_ids[token])) else token

    def match(
        self, symbols: Sequence[str], gene_ids: Sequence[str] | None = None, *, min_fraction: float = 0.5
    ) -> GeneMatch:
        """Find the token of each gene of a data set, as `look_up` does, and fail where too few have one.

        Parameters
        ----------
        symbols, gene_ids
            As for `look_up`.
        min_fraction
            Least share f of the genes of the input that must match, or else (1 + f) / 2 of those of the model: a panel
            of 300 genes may be a part of a vocabulary of 6,000, and a whole transcriptome may hold a vocabulary of 300,
            but a model that reads a few genes of the panel and misses many of its own reads another cell.

        Raises
        ------
        InputError
            If fewer genes match, or none, or the fraction is no share.
        """
        if not 0.0 <= min_fraction <= 1.0:
            raise InputError(f"min_gene_fraction is a share from 0 to 1, not {min_fraction:g}.")
        match = self.look_up(symbols, gene_ids)
        n_matched, n_input, n_known = len(match.matched), match.token_ids.size, self.gene_token_ids.size
        of_model = (1.0 + min_fraction) / 2.0
        enough = match.fraction >= min_fraction or (min_fraction > 0.0 and match.model_fraction >= of_model)
        if n_matched == 0 or not enough:
            raise InputError(
                f"Only {n_matched} of {n_input} genes are among the model's {n_known} genes "
                f"(at least {min_fraction:.0%} of those of the input or {of_model:.0%} of the model's are needed: "
                "min_gene_fraction); the input has genes like "
                f"{', '.join(map(str, symbols[:3]))}, "
                f"the model like {', '.join(self.tokens[token] for token in self.gene_token_ids[:3])}."
            )
        return match

    def save(self, path: str | Path) -> None:
        """Write the vocabulary as JSON, through a temporary file."""
        content = {
            "format_version": FORMAT_VERSION,
            "special": self.special,
            "context": self.context,
            "tokens": self.tokens,
            "scale": [float(value) for value in self.scale],
            "gene_ids": self.gene_ids,
        }
        replace_file(Path(path), lambda temporary: temporary.write_text(json.dumps(content, indent=1), "utf-8"))

    @classmethod
    def load(cls, path: str | Path) -> Vocabulary:
        """Read a vocabulary that `save` wrote.

        Raises
        ------
        InputError
            If the file is not such a vocabulary, or of a newer format version.
        FileNotFoundError
            If there is no file.
        """
        content = read_json_object(Path(path), newest=FORMAT_VERSION)
        missing = [key for key in ("tokens", "special", "context", "scale") if key not in content]
        if missing:
            raise InputError(f"{path} is not a vocabulary: it has no {missing[0]!r}.")
        try:
            return cls(
                content["tokens"],
                special=content["special"],
                context=content["context"],
                scale=content["scale"],
                gene_ids=content.get("gene_ids"),
            )
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{path} is not a vocabulary: {error}.") from error

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocabulary):
            return NotImplemented
        return (
            self.tokens == other.tokens
            and self.special == other.special
            and self.context == other.context
            and self.gene_ids == other.gene_ids
            and bool(np.array_equal(self.scale, other.scale))
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        context = ", ".join(f"{len(names)} {kind}" for kind, names in self.context.items())
        return f"Vocabulary({self.gene_token_ids.size} genes, {context})"
