"""What the adapters of all frameworks have in common: their options, and the model they share.

Needs pydantic, which the frameworks bring.
"""
