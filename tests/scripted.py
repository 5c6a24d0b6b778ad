"""A tiny model that says one text after the other, whatever it is asked."""

import torch

from finch_integrations import FinchEngine
from tests.tiny import CHATML, make_model, make_tokenizer


def scripted_engine(*texts, chat_template=CHATML):
    """An engine whose model wants to say `texts`, one in every answer; the last one for ever."""
    # Agents' prompts are long for a tokenizer of bytes.
    model = make_model(max_position_embeddings=32_768)
    tokenizer = make_tokenizer(chat_template)
    script = [tokenizer(f"{text}<|im_end|>").input_ids for text in texts]
    state = {"call": -1, "step": 0, "prompt": False}

    def note(_, args, kwargs):
        reads = kwargs["input_ids"].shape[1] > 1
        if reads and not state["prompt"]:
            state["call"] = min(state["call"] + 1, len(script) - 1)
            state["step"] = -1
        state["prompt"] = reads
        state["step"] = 0 if reads else state["step"] + 1

    def force(_, args, logits):
        logits = torch.zeros_like(logits)
        said = script[state["call"]]
        logits[..., said[min(state["step"], len(said) - 1)]] = 1
        return logits

    model.register_forward_pre_hook(note, with_kwargs=True)
    model.lm_head.register_forward_hook(force)
    return FinchEngine(model, tokenizer)
