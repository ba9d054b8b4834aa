"""An automaton that holds an output to a list of texts: a prefix trie on top of the grammar.

Constrained generative error correction (Ma et al. 2023) picks from the n-best list this way, and routing from the
calls that the tools allow.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.automaton import Automaton
from unitok_tokenizers.grammar.output_slots import Ranges, merge
from unitok_tokenizers.grammar.vocabulary import Vocabulary


class _Node:
    """A prefix of listed sequences."""

    __slots__ = ("children", "allowed")

    def __init__(self) -> None:
        self.children: dict[int, _Node] = {}
        self.allowed: Ranges = ()

    def seal(self) -> None:
        """Note the ranges of the children, here and below."""
        self.allowed = merge([(token, token + 1) for token in self.children])
        for child in self.children.values():
            child.seal()


class ListedAutomaton(Automaton):
    """An `Automaton` whose first output is one of `choices`.

    Args:
        vocabulary: the ids.
        prompt_ids: what `render_prompt` gave, without a prefix of the output.
        choices: local text ids (N,) of each text that may come, at least one.

    Raises:
        InputError: no choices, or an empty one; and as `Automaton`.
    """

    def __init__(
        self, vocabulary: Vocabulary, prompt_ids: np.ndarray | Sequence[int], choices: Sequence[Sequence[int]]
    ) -> None:
        if not choices or not all(len(choice) for choice in choices):
            raise InputError("a list to choose from needs at least one text, none of them empty")
        super().__init__(vocabulary, prompt_ids, max_new_tokens=max(map(len, choices)) + 2)
        slot = self._slots[0]
        assert self._at == 0 and not self._items, "the output has begun"
        close = slot.close  # type: ignore[union-attr]
        root = _Node()
        for choice in choices:
            node = root
            for token in (*vocabulary.to_ids("text", np.asarray(choice)).tolist(), close):
                node = node.children.setdefault(int(token), _Node())
        root.seal()
        self._node = root

    def allowed(self) -> Ranges:
        """Ids that some listed text goes on with; behind it what the grammar says."""
        return self._node.allowed if self._at == 0 and not self.finished else super().allowed()

    def _must_close(self) -> bool:
        """Never: the list ends a text, no limit does."""
        return False

    def _take(self, token: int) -> None:
        if self._at == 0 and hasattr(self, "_node"):
            self._node = self._node.children[token]
        super()._take(token)
