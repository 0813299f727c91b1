"""The augmenting model's part of a pass through a composed model (`forgetmenot.models.composition`).

It runs before the anchor, and what it gives at the connected layers is what the anchor sees in the same pass.
With a cache, its keys and values lie behind the anchor's own, as do those of the connections.

Where both models have the same tokens, it runs on the anchor's own positions, under the same mask. Where they
have not, a position of the anchor stands for the text up to its end. This text becomes the augmenting
model's tokens, and the position attends to all of these. The texts of all positions share their beginnings,
so their tokens are a trie. A position never depends on later text, not even where a longer text divides into
other tokens.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from forgetmenot.engine.mask import attention_mask, dense_mask
from forgetmenot.engine.precision import activation_dtype
from forgetmenot.engine.trie import Ints, build_trie
from forgetmenot.errors import UserError
from forgetmenot.models.composition import Bridge, Seen, allowed_or_blind, cached_layers, composition
from forgetmenot.models.layers import decoder_layers
from forgetmenot.prompting.tokens import tokens_of

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Positions:
    """The anchor's positions in one pass: a trie, or rows.

    Attributes:
        tokens: [1 or rows, n].
        depth: Position ids, as `tokens`; None where the mask says them.
        end: The trie's subtree ends [n]; None for rows.
        prefix: How many positions are before a trie.
        mask: Which positions of rows count [rows, past + n]; None for a trie.
    """

    tokens: Tensor
    depth: Tensor | None = None
    end: Tensor | None = None
    prefix: int = 0
    mask: Tensor | None = None

    @property
    def allowed(self) -> Tensor:
        """Which positions each one attends to [1 or rows, 1, n, past + n]."""
        if self.end is not None:
            assert self.depth is not None
            return dense_mask(self.end, self.depth[0], None, self.prefix)[None, None]
        assert self.mask is not None
        n, total = self.tokens.shape[1], self.mask.shape[1]
        index = torch.arange(total, device=self.mask.device)
        earlier = index[None, :] <= index[total - n :, None]
        return (earlier[None] & self.mask.bool()[:, None, :])[:, None]


def text_configs(model: Any) -> list[Any]:
    """The configuration of a model, and of the augmenting model that it is composed with."""
    composed = composition(model)
    parts = [model] if composed is None or composed.bridge is None else [model, composed.bridge.augmenting]
    return [part.config.get_text_config() for part in parts]


@contextmanager
def augmented(model: Any, positions: Positions, cache: Any = None) -> Iterator[None]:
    """Context for one pass through a model: if it is an anchor, with what it sees of its augmenting model."""
    composed = composition(model)
    bridge = None if composed is None else composed.bridge
    if composed is None or bridge is None:
        yield
        return
    layers = model.config.get_text_config().num_hidden_layers
    with torch.no_grad():
        if bridge.tokenizers is None:
            seen = _same_tokens(bridge, positions, cache, layers)
        else:
            seen = _other_tokens(bridge, positions, cache, layers)
    with composed.seeing(seen):
        yield


def _same_tokens(bridge: Bridge, positions: Positions, cache: Any, layers: int) -> Seen:
    """On the anchor's own positions, with keys and values behind the anchor's."""
    own, caches = None, ()
    config = bridge.augmenting.config.get_text_config()
    if cache is not None:
        counts = (len(bridge.connections), config.num_hidden_layers)
        connections, augmenting = cached_layers(cache, layers, counts)
        own, caches = type(cache)(), tuple(connections)
        own.layers = augmenting
    mask: Any = positions.mask
    if positions.end is not None:
        assert positions.depth is not None
        dtype = activation_dtype(bridge.augmenting)
        mask = attention_mask(config, positions.end, positions.depth[0], dtype, positions.prefix)
    states = _states(bridge, positions.tokens, mask, positions.depth, own)
    return Seen(states, *allowed_or_blind(positions.allowed), caches)


def _other_tokens(bridge: Bridge, positions: Positions, cache: Any, layers: int) -> Seen:
    """On the tokens of the text up to each position; only the anchor's token ids are kept in a cache."""
    ids = positions.tokens
    if cache is not None:
        ((kept,),) = cached_layers(cache, layers, (1,))
        ids = kept.update(ids[:, None, :, None], ids[:, None, :, None])[0][:, 0, :, 0]
    n, device = positions.tokens.shape[1], ids.device
    allowed = positions.allowed[:, 0].expand(len(ids), -1, -1).cpu().numpy()
    rows = ids.cpu().numpy()
    paths = [[tuple(row[allowed[r, i, : row.size]].tolist()) for i in range(n)] for r, row in enumerate(rows)]
    assert bridge.tokenizers is not None
    texts = tokens_of_paths(*bridge.tokenizers, [path for row in paths for path in row])
    tries = [_PathTrie.of(texts[r * n : (r + 1) * n]) for r in range(len(rows))]
    width = max(1, *(len(one.tokens) for one in tries))
    if (most := _positions_of(bridge)) is not None and (deepest := max(one.deepest for one in tries)) >= most:
        raise UserError(
            f"The augmenting model has {most:,} positions, and a text has {deepest + 1:,} of its tokens; set "
            "training.max_length lower, or take another augmenting model."
        )
    tries = [one.padded(width) for one in tries]
    tokens, depth, end, stands = (
        torch.from_numpy(np.stack([getattr(one, name) for one in tries])).to(device)
        for name in ("tokens", "depth", "end", "stands")
    )
    config = bridge.augmenting.config.get_text_config()
    dtype = activation_dtype(bridge.augmenting)
    masks = [attention_mask(config, e, d, dtype) for e, d in zip(end, depth, strict=True)]
    states = _states(bridge, tokens, _stacked(masks), depth, None)
    index = torch.arange(width, device=device)
    path = (index <= stands[..., None]) & (stands[..., None] < end[:, None, :])
    return Seen(states, *allowed_or_blind(path[:, None]))


@dataclass(frozen=True)
class _PathTrie:
    """The augmenting model's tokens for one row of positions.

    Attributes:
        tokens: [m].
        depth: [m].
        end: [m].
        stands: For each position the node of its last token; −1 where its text has none [n].
    """

    tokens: Ints
    depth: Ints
    end: Ints
    stands: Ints

    @classmethod
    def of(cls, paths: Sequence[Ids]) -> "_PathTrie":
        """The trie of these token sequences, of which some may be empty."""
        distinct = list(dict.fromkeys(path for path in paths if path))
        trie = build_trie(distinct)
        last = {path: int(nodes[-1]) for path, nodes in zip(distinct, trie.nodes, strict=True)}
        stands = np.array([last.get(path, -1) for path in paths], dtype=np.int64)
        return cls(trie.tokens, trie.depth, trie.end, stands)

    @property
    def deepest(self) -> int:
        """The last position id."""
        return int(self.depth.max(initial=0))

    def padded(self, width: int) -> "_PathTrie":
        """With nodes behind it that nothing attends to but they themselves."""
        more = width - len(self.tokens)
        own = np.arange(len(self.tokens), width) + 1
        nothing = np.zeros(more, dtype=np.int64)
        return _PathTrie(
            np.concatenate([self.tokens, nothing]),
            np.concatenate([self.depth, nothing]),
            np.concatenate([self.end, own]),
            self.stands,
        )


def tokens_of_paths(anchor: Any, augmenting: Any, paths: Sequence[Ids]) -> list[Ids]:
    """The augmenting model's tokens for the text of each of some sequences of the anchor's tokens.

    Special tokens of the anchor are no text. What the augmenting tokenizer puts in front of every text stands
    in front here too. Bytes that are not yet a whole letter are not yet there.

    Args:
        anchor: The anchor's tokenizer.
        augmenting: The augmenting model's.
        paths: Token ids of the anchor.
    """
    distinct = list(dict.fromkeys(paths))
    texts = anchor.batch_decode(distinct, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    whole = [text.rstrip("\ufffd") for text in texts]
    found = dict(zip(distinct, tokens_of(augmenting).plain(whole), strict=True))
    return [found[path] for path in paths]


def _positions_of(bridge: Bridge) -> int | None:
    return getattr(bridge.augmenting.config.get_text_config(), "max_position_embeddings", None)


def _stacked(masks: Sequence[Any]) -> Any:
    """Masks of one row each as one of all rows."""
    if isinstance(masks[0], dict):
        return {kind: torch.cat([mask[kind] for mask in masks]) for kind in masks[0]}
    return torch.cat(list(masks))


def _states(
    bridge: Bridge, tokens: Tensor, mask: Any, depth: Tensor | None, cache: Any
) -> tuple[Tensor, ...]:
    """What the connected layers of the augmenting model give [1 or rows, m, augmenting width]."""
    found: dict[int, Tensor] = {}

    def keep(number: int) -> Any:
        def see(_: nn.Module, __: Any, given: Any) -> None:
            found[number] = given[0] if isinstance(given, tuple) else given

        return see

    layers = decoder_layers(bridge.augmenting)
    with ExitStack() as hooks:
        for number in bridge.read:
            hook = layers[number].register_forward_hook(keep(number))
            hooks.callback(hook.remove)
        bridge.augmenting.get_decoder()(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=depth,
            past_key_values=cache,
            use_cache=cache is not None,
        )
    return tuple(found[number] for number in bridge.read)
