"""Which streams shards have: those of tokenizers and those made elsewhere, and whether rows keep to them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.data.shards import COLUMNS
from unitok_tokenizers.data.token_sources import TokenSource, array_of, checked_ids
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.streams import ELSEWHERE, StreamInfo, columns_of
from unitok_tokenizers.tokenizer_set import TokenizerSet


def described_streams(
    rows: Sequence[Row] | None,
    tokenizers: TokenizerSet,
    external: Mapping[str, StreamInfo],
    sources: Mapping[str, TokenSource],
) -> list[StreamInfo]:
    """Descriptions of all streams, text first; InputError for ids without one, outside it, or for one without ids.

    Rows that come later, None, are checked as they come: `check_tokens`, and `check_carried` at their end.
    """
    streams = {info.name: info for info in tokenizers.infos()}
    if unknown := [name for name in sources if name not in external]:
        raise InputError(
            f"tokens {unknown[0]!r} are not described; describe the stream (--stream {unknown[0]}=FILE.json)"
        )
    for name, info in external.items():
        if info.kind not in ELSEWHERE or info.name != name:
            raise InputError(f"stream {name!r}: tokens made elsewhere are {' or '.join(ELSEWHERE)}, not {info.kind}")
        if rows is not None and name not in sources:
            check_carried({one for row in rows for one in row.tokens}, tokenizers, {name: info})
        own = streams.get(name)
        if own is not None and own.fingerprint != info.fingerprint:
            raise InputError(
                f"stream {name!r}: the tokenizers make it with fingerprint {own.fingerprint}, its description says "
                f"{info.fingerprint}; leave out one of the two"
            )
    found = {**streams, **external, **streams}
    check_tokens(rows or (), list(found.values()))
    for info in found.values():
        if info.views is not None and info.views not in found:
            raise InputError(f"stream {info.name!r} views {info.views!r}, which is not described; describe it too")
    for info in found.values():
        units = info.runs_of and found.get(info.runs_of)
        if info.runs_of is not None and (not units or not units.deduplicated):
            raise InputError(
                f"stream {info.name!r} goes with the runs of {info.runs_of!r}, which these tokenizers do not make; "
                f"leave out the folder {info.name} of the tokenizers, or fit them again"
            )
    for name, tokenizer in tokenizers.durations.items():
        units = found[tokenizer.runs_of]
        if units.fingerprint != tokenizer.units:
            raise InputError(
                f"stream {name!r} was made for {units.name!r} of fingerprint {tokenizer.units}, and here they are "
                f"{units.fingerprint}; fit the tokenizers again"
            )
    taken = list(COLUMNS)
    for info in found.values():
        for column in columns_of(info):
            if column in taken:
                raise InputError(f"stream {info.name!r}: shards have a column {column!r} already; give it another name")
            taken.append(column)
    return list(found.values())


def check_carried(carried: Collection[str], tokenizers: TokenizerSet, external: Mapping[str, StreamInfo]) -> None:
    """InputError for a stream that is described, and that neither a row carries nor a tokenizer makes."""
    for name in external:
        if name not in carried and name not in tokenizers.streams:
            raise InputError(
                f"stream {name!r} is described, and no row has a column {name!r}; name the column (--columns "
                f"{name}=COLUMN), or the file of its ids (--tokens {name}=FILE)"
            )


def check_tokens(rows: Iterable[Row], streams: Sequence[StreamInfo]) -> None:
    """InputError for ids that rows carry without a description, or outside it."""
    described = {stream.name: stream for stream in streams}
    for row in rows:
        for name, tokens in row.tokens.items():
            if name not in described:
                raise InputError(
                    f"rows carry {name!r} tokens made elsewhere; describe the stream (--stream {name}=FILE.json)"
                )
            where = f"row {row.id}"
            checked_ids(array_of(tokens, where), where, described[name])
