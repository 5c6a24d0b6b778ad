"""The Finch method once more, slow and obvious, sharing no code with the package.

Attention comes from the model's own eager implementation (`output_attentions=True`), scores from
loops over float64 numbers, key movement from complex multiplication with angles read off the
model's rotary embedding.
"""

import copy

import torch
from transformers import DynamicCache


def reference_finch(
    model,
    prefix,
    documents,
    window,
    *,
    rows,
    target,
    chunk_length,
    selection="layer",
    budget_schedule="linear",
    normalize_scores=False,
    pooling="none",
    pooling_kernel=5,
):
    """Score by the last `rows` tokens of the window, which is fed after every chunk.

    Return (kept, keys, values): kept[layer][head] is a list of document positions; keys and
    values are lists over layers of [G, prefix + K, D]."""
    model = copy.deepcopy(model)
    model.set_attn_implementation("eager")
    config = model.config
    layers, groups = config.num_hidden_layers, config.num_key_value_heads
    per_group = config.num_attention_heads // groups
    rotated = getattr(config, "no_rope_layers", None) or [1] * layers

    cache = DynamicCache()
    feed(model, prefix, cache, start=0)
    p, q, n = len(prefix), rows, len(documents)
    kept = [[[] for _ in range(groups)] for _ in range(layers)]

    seen = 0
    while seen < n:
        chunk = documents[seen : seen + chunk_length]
        held = len(kept[0][0])
        attentions = feed(model, [*chunk, *window], cache, start=p + held)
        new_positions = list(range(seen, seen + len(chunk)))
        seen += len(chunk)
        if budget_schedule == "linear":
            budget = int(target * seen / n + 0.5)
        else:
            budget = min(target, held + len(chunk))
        pruned = DynamicCache()
        for layer in range(layers):
            weights = attentions[layer][0].double()  # [H, M, N]
            total = weights.shape[-1]
            keys, values = cache.layers[layer].keys[0], cache.layers[layer].values[0]
            new_keys, new_values, new_kept = [], [], []
            for group in range(groups):
                positions = kept[layer][group] + new_positions
                if selection == "layer":
                    heads = range(config.num_attention_heads)
                else:
                    heads = range(group * per_group, (group + 1) * per_group)
                scores = []
                for column in range(p, p + len(positions)):
                    score = 0.0
                    for head in heads:
                        for row in range(q):
                            factor = (total - q + row + 1) / total if normalize_scores else 1.0
                            score += factor * float(weights[head, -q + row, column])
                    scores.append(score)
                if pooling != "none":
                    scores = [
                        pool(
                            [
                                s
                                for s, other in zip(scores, positions, strict=True)
                                if abs(other - here) <= pooling_kernel // 2
                            ],
                            pooling,
                        )
                        for here in positions
                    ]
                best = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:budget]
                best = sorted(best)
                group_keys = [keys[group, i] for i in range(p)]
                group_values = [values[group, i] for i in range(p)]
                for rank, index in enumerate(best):
                    key = keys[group, p + index]
                    if rotated[layer]:
                        key = move(model, key, p + index, p + rank)
                    group_keys.append(key)
                    group_values.append(values[group, p + index])
                new_keys.append(torch.stack(group_keys))
                new_values.append(torch.stack(group_values))
                new_kept.append([positions[i] for i in best])
            pruned.update(torch.stack(new_keys)[None], torch.stack(new_values)[None], layer)
            kept[layer] = new_kept
        cache = pruned
    return (
        kept,
        [layer.keys[0] for layer in cache.layers],
        [layer.values[0] for layer in cache.layers],
    )


@torch.no_grad()
def feed(model, ids, cache, *, start):
    """Run the model; return its attention weights."""
    positions = torch.arange(start, start + len(ids))[None]
    output = model(
        input_ids=torch.tensor([ids]),
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        output_attentions=True,
    )
    return output.attentions


def pool(scores, how):
    return max(scores) if how == "max" else sum(scores) / len(scores)


def move(model, key, old, new):
    """Turn a key from one position to another by complex multiplication."""
    cos, sin = model.base_model.rotary_emb(key[None, None].float(), torch.tensor([[old, new]]))
    angles = torch.atan2(sin, cos)[0].double()  # [2, R]
    size = angles.shape[-1]
    half = size // 2
    numbers = torch.complex(key[:half].double(), key[half:size].double())
    turned = numbers * torch.polar(torch.ones(half).double(), angles[1, :half] - angles[0, :half])
    return torch.cat((turned.real, turned.imag, key[size:].double())).to(key.dtype)
