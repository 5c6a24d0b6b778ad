"""The engine: documents in, compressed KV cache, tokens and text out.

Shape legend, used at the end of lines throughout:

    H  query heads            Q  question tokens
    G  key/value heads        N  keys: cached tokens and the ones just fed
    D  head dimension         K  kept tokens
    R  rotated dimensions     S  selections per layer: 1, or G if every KV head selects
"""
