"""N-best lists to one answer."""

from __future__ import annotations

from unitok_tokenizers.grammar.tasks.base import TaskSpec

GER = TaskSpec(name="ger", conditions=("hyp", "lat"), outputs=("text",), description="correction of an n-best list")

GTR = TaskSpec(
    name="gtr", languages=2, conditions=("hyp", "lat"), outputs=("text",), description="translation of an n-best list"
)
