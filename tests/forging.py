"""Saved contexts and selections with other content than was written, and checksums that fit it."""

import hashlib
import json

from safetensors import safe_open
from safetensors.torch import save_file

from finch_integrations.engine import context as contexts


def read_context(path):
    """Its facts and its tensors."""
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        return json.loads(file.metadata()["facts"]), {n: file.get_tensor(n) for n in names}


def forge_context(path, facts, tensors, **metadata):
    """Write a context file as if it had been saved like this."""
    text = facts if isinstance(facts, str) else json.dumps(facts)
    tensors = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    known = {"format": contexts._FORMAT, "facts": text, "sha256": contexts._digest(text, tensors)}
    save_file(tensors, path, metadata={**known, **metadata})


def read_selection(path):
    """Its facts."""
    return json.loads(path.read_text().splitlines()[1])


def forge_selection(path, facts):
    """Write a selection file as if it had been saved like this."""
    header = json.loads(path.read_text().splitlines()[0])
    text = json.dumps(facts)
    header["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(f"{json.dumps(header)}\n{text}\n")
