"""Saving a compressed context and answering from it later."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from finch_integrations import FinchEngine, InvalidInputError
from tests.forging import forge_context, read_context
from tests.tiny import make_model, text_of

DOCUMENTS = [text_of(300, seed=1), {"text": text_of(100, seed=2), "id": "x", "title": "T"}]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(
    "method", [{}, {"method": "finch"}, {"method": "finch", "selection": "kv_head"}], ids=str
)
def test_a_loaded_context_answers_the_same(tmp_path, tokenizer, dtype, method):
    engine = FinchEngine(make_model(dtype=dtype), tokenizer)
    context = engine.compress(DOCUMENTS, "What?", target_size=50, **method)
    context.save(tmp_path / "context.safetensors")
    again = FinchEngine(make_model(dtype=dtype), tokenizer)  # as after a restart
    loaded = again.load_context(tmp_path / "context.safetensors")
    assert again.generate(loaded, max_tokens=20) == engine.generate(context, max_tokens=20)
    assert (loaded.stats, loaded.document_shares) == (context.stats, context.document_shares)
    assert all(torch.equal(x, y) for x, y in zip(loaded.kept, context.kept, strict=True))


def test_each_layers_keys_go_to_its_device(tmp_path, engine):
    path = tmp_path / "context.safetensors"
    engine.compress(DOCUMENTS, "What?", target_size=50).save(path)
    engine.backbone.model.model.layers[1].to("meta")  # stands for a second accelerator
    loaded = engine.load_context(path)
    devices = [(layer.keys.device.type, layer.values.device.type) for layer in loaded.cache.layers]
    assert devices == [("cpu", "cpu"), ("meta", "meta")]
    assert {kept.device.type for kept in loaded.kept} == {"cpu"}


def test_weights_that_are_offloaded_do_not_say_where_keys_lie(tmp_path, tokenizer):
    make_model().save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    offloaded = {"model.layers.1": "disk", "model.layers.0": "cpu"}
    rest = dict.fromkeys(("model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"), "cpu")
    path = tmp_path / "context.safetensors"
    with FinchEngine.from_pretrained(
        tmp_path / "model",
        device_map=offloaded | rest,
        offload_folder=tmp_path / "offload",
    ) as engine:
        assert {weight.device.type for weight in engine.backbone.model.parameters()} == {
            "cpu",
            "meta",
        }
        context = engine.compress(DOCUMENTS, "What?", target_size=50)
        context.save(path)
        answers = [engine.generate(c, max_tokens=10) for c in (context, engine.load_context(path))]
    assert answers[0] == answers[1]


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, engine, monkeypatch):
    context = engine.compress(DOCUMENTS, "What?", target_size=50)
    path = tmp_path / "context.safetensors"
    context.save(path)
    before = path.read_bytes()

    def disk_full(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.replace", disk_full)
    with pytest.raises(OSError, match="No space"):
        context.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_another_models_context_is_refused(tmp_path, tokenizer, engine):
    path = tmp_path / "context.safetensors"
    engine.compress(DOCUMENTS, "What?", target_size=50).save(path)
    other_weights = make_model()
    with torch.no_grad():
        other_weights.model.layers[0].mlp.up_proj.weight += 0.1
    for other in (make_model("qwen2"), other_weights, make_model(dtype=torch.bfloat16)):
        with pytest.raises(InvalidInputError, match="compressed with another model"):
            FinchEngine(other, tokenizer).load_context(path)


def test_unreadable_files_are_named(tmp_path, engine):
    path = tmp_path / "context.safetensors"
    with pytest.raises(InvalidInputError, match=r"cannot read .*context\.safetensors"):
        engine.load_context(path)
    engine.compress(DOCUMENTS, "What?", target_size=50).save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InvalidInputError, match="damaged"):
        engine.load_context(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(InvalidInputError, match="not a compressed context"):
        engine.load_context(path)


def test_a_missing_folder_is_named(tmp_path, engine):
    context = engine.compress(DOCUMENTS, "What?", target_size=50)
    path = tmp_path / "nowhere" / "context.safetensors"
    with pytest.raises(InvalidInputError, match=r"no folder .*nowhere to save .* Make it first"):
        context.save(path)
    with pytest.raises(InvalidInputError, match=r"cannot read .*nowhere.context\.safetensors"):
        engine.load_context(path)


@pytest.mark.parametrize("missing", ["facts", "fingerprint", "stats", "kept.1", "values.0"])
def test_a_file_without_something_is_refused(tmp_path, engine, missing):
    path = tmp_path / "context.safetensors"
    engine.compress(DOCUMENTS, "What?", target_size=50).save(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys() if name != missing}  # noqa: SIM118
    facts = json.loads(metadata["facts"])
    facts.pop(missing, None)
    forge_context(path, facts, tensors)
    if missing == "facts":
        save_file(tensors, path, metadata={"format": metadata["format"]})
    with pytest.raises(InvalidInputError, match=f"damaged.*{missing}.*Compress again"):
        engine.load_context(path)


def _set(name, value):
    def change(facts, tensors):
        tensors[name] = value(tensors[name])

    return change


FORGERIES = {
    "NaN": _set("keys.0", lambda keys: keys * float("nan")),
    "infinite": _set("values.1", lambda values: values / 0),
    "fewer tokens": _set("keys.1", lambda keys: keys[:, :, 1:]),
    "more heads": _set("values.0", lambda values: values.repeat(1, 2, 1, 1)),
    "other numbers": _set("keys.0", lambda keys: keys.double()),
    "whole numbers": _set("keys.0", lambda keys: keys.long()),
    "no batch": _set("keys.0", lambda keys: keys[0]),
    "places outside": _set("kept.0", lambda kept: kept + 10_000),
    "negative places": _set("kept.0", lambda kept: kept - 10_000),
    "places that are none": _set("kept.1", lambda kept: kept.float()),
    "text for a number": lambda facts, _: facts["stats"].update(kept_tokens="50"),
    "a negative count": lambda facts, _: facts["stats"].update(prefix_tokens=-1),
    "another count": lambda facts, _: facts["stats"].update(kept_tokens=51),
    "no question": lambda facts, _: facts["prompt"].update(question=None),
    "a turn of nobody": lambda facts, _: facts["prompt"].update(history=[{"role": "x"}]),
    "a turn that is none": lambda facts, _: facts["prompt"].update(history=["x"]),
    "more facts": lambda facts, _: facts["prompt"].update(more=1),
    "shares that are none": lambda facts, _: facts.update(document_shares=[1]),
    "not a list": lambda facts, _: facts.update(excerpts={}),
    "an infinite score": lambda facts, _: facts["excerpts"][0].update(score=float("inf")),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_file_is_refused_when_it_is_read(tmp_path, engine, forgery):
    path = tmp_path / "context.safetensors"
    engine.compress(DOCUMENTS, "What?", target_size=50).save(path)
    facts, tensors = read_context(path)
    forge_context(path, facts, tensors)
    engine.load_context(path)  # the forger knows the checksum
    FORGERIES[forgery](facts, tensors)
    forge_context(path, facts, tensors)
    with pytest.raises(InvalidInputError, match="damaged"):
        engine.load_context(path)


@pytest.mark.parametrize("facts", ["", "3", "[]", '{"fingerprint": 3}'])
def test_a_file_with_wrong_facts_is_refused(tmp_path, engine, facts):
    path = tmp_path / "context.safetensors"
    engine.compress(DOCUMENTS, "What?", target_size=50).save(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() | {"facts": facts}
    save_file({"x": torch.zeros(1)}, path, metadata=metadata)
    with pytest.raises(InvalidInputError, match="Compress again|compress again"):
        engine.load_context(path)


def test_a_context_is_shown_on_one_line(engine):
    context = engine.compress(DOCUMENTS, "What is said?", target_size=50)
    assert repr(context).startswith("CompressedContext('What is said?', ")
    assert ", 50 of " in repr(context)
    assert len(repr(context)) < 200
    assert "\n" not in repr(context)
