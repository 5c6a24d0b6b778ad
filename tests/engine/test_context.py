"""Saving a compressed context and answering from it later."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from finch_integrations import FinchEngine, InvalidInputError
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
    with pytest.raises(InvalidInputError, match="cannot read"):
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
    metadata["facts"] = json.dumps(facts)
    metadata.pop(missing, None)
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(InvalidInputError, match=f"damaged.*{missing}.*Compress again"):
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
