"""Finding, sharing and freeing models."""

import gc
import json
import threading
import time
import weakref

import pytest
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from finch_integrations import (
    ConfigurationError,
    FinchEngine,
    ModelLoadError,
    UnsupportedModelError,
)
from finch_integrations.engine import gguf, loading, registry
from tests.tiny import CONFIGS, make_model, make_tokenizer, text_of


@pytest.fixture
def folder(tmp_path):
    """A model on disk, as save_pretrained leaves it."""
    path = tmp_path / "model"
    make_model().save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    return path


def test_a_local_folder_answers_like_the_model_it_was_saved_from(folder, engine):
    loaded = FinchEngine.from_pretrained(folder, device="cpu", dtype="float32")
    documents = [text_of(200)]
    answers = [
        e.generate(e.compress(documents, "What?", target_size=50), max_tokens=10)
        for e in (loaded, engine)
    ]
    assert answers[0] == answers[1]
    loaded.close()


def test_engines_of_one_model_share_weights_until_the_last_is_closed(folder, monkeypatch):
    before = dict(registry._entries)
    monkeypatch.chdir(folder.parent)
    first = FinchEngine.from_pretrained(folder, device="cpu", dtype="float32")
    second = FinchEngine.from_pretrained("./model", device="cpu", dtype=torch.float32)
    other = FinchEngine.from_pretrained(folder, device="cpu", dtype="bfloat16")
    assert second.backbone is first.backbone
    assert other.backbone is not first.backbone
    weights = weakref.ref(first.backbone.model)
    first.close()
    assert second.compress(["text"], "What?").stats.kept_tokens == 4
    second.close()
    other.close()
    gc.collect()
    assert weights() is None
    assert registry._entries == before


def test_threads_that_ask_at_once_load_once(folder, monkeypatch):
    loads = []
    real = loading._load

    def counted(*args):
        loads.append(args)
        return real(*args)

    monkeypatch.setattr(loading, "_load", counted)
    engines = []
    ask = lambda: engines.append(FinchEngine.from_pretrained(folder, device="cpu"))  # noqa: E731
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert len({id(engine.backbone) for engine in engines}) == 1
    for engine in engines:
        engine.close()


def test_a_failed_load_is_not_remembered(folder):
    before = dict(registry._entries)
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:100])
    with pytest.raises(ModelLoadError, match="cannot load the model"):
        FinchEngine.from_pretrained(folder, device="cpu")
    assert registry._entries == before
    weights.write_bytes(content)
    FinchEngine.from_pretrained(folder, device="cpu").close()


def test_options_reach_transformers_and_the_dtype_is_kept(folder):
    with FinchEngine.from_pretrained(
        folder, device="cpu", dtype="bfloat16", attn_implementation="eager"
    ) as engine:
        model = engine.backbone.model
        assert model.dtype == torch.bfloat16
        assert model.config._attn_implementation == "eager"
    with FinchEngine.from_pretrained(folder, device_map="cpu") as engine:
        assert engine.backbone.device.type == "cpu"


def test_pickled_weights_are_never_loaded(folder):
    state = make_model().state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match="cannot load the model"):
        FinchEngine.from_pretrained(folder, device="cpu")


def test_remote_code_stays_off_unless_asked(folder, monkeypatch):
    seen = []
    for cls in (loading.AutoModelForCausalLM, loading.AutoTokenizer):
        real = cls.from_pretrained

        def spy(*args, real=real, **kwargs):
            seen.append(kwargs["trust_remote_code"])
            return real(*args, **kwargs)

        monkeypatch.setattr(cls, "from_pretrained", spy)
    FinchEngine.from_pretrained(folder, device="cpu").close()
    FinchEngine.from_pretrained(folder, device="cpu", trust_remote_code=True).close()
    assert seen == [False, False, True, True]


def test_a_model_of_the_hub_may_lie_in_another_cache_and_in_a_subfolder(folder, tmp_path):
    cached, commit = tmp_path / "cache" / "models--org--name", "0" * 40
    for name in ("refs", f"snapshots/{commit}"):
        (cached / name).mkdir(parents=True)
    (cached / "refs" / "main").write_text(commit)
    folder.rename(cached / "snapshots" / commit / "part")
    with FinchEngine.from_pretrained(
        "org/name", device="cpu", cache_dir=tmp_path / "cache", subfolder="part"
    ) as engine:
        assert engine.compress(["text"], "What?").stats.kept_tokens == 4


def test_access_to_the_hub_is_the_same_for_model_and_tokenizer(folder, monkeypatch):
    access = {"token": "secret", "proxies": {"https": "proxy"}, "force_download": True}
    seen = []
    for cls in (loading.AutoModelForCausalLM, loading.AutoTokenizer):
        real = cls.from_pretrained

        def spy(*args, real=real, **kwargs):
            seen.append({name: kwargs.get(name) for name in access})
            return real(*args, **kwargs)

        monkeypatch.setattr(cls, "from_pretrained", spy)
    FinchEngine.from_pretrained(folder, device="cpu", **access).close()
    assert seen == [access, access]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("./nowhere", "no model folder .*nowhere"),
        ("nowhere.gguf", "no file .*nowhere.gguf"),
        ("no/such-model-anywhere", "cannot load the model 'no/such-model-anywhere'"),
    ],
)
def test_unknown_models_are_named(model, reason):
    with pytest.raises(ModelLoadError, match=reason):
        FinchEngine.from_pretrained(model, device="cpu")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"device": "abacus"}, "device 'abacus' cannot be used"),
        ({"dtype": "int8"}, "dtype must be"),
        ({"dtype": "float99"}, "dtype must be"),
        ({"device": "cpu", "device_map": "auto"}, "either device or device_map"),
        ({"model": ""}, "model must be"),
        ({"model": 3}, "model must be"),
    ],
)
def test_bad_loading_options_are_named(options, reason):
    with pytest.raises(ConfigurationError, match=reason):
        FinchEngine.from_pretrained(**{"model": "embedded"} | options)


def test_an_unsupported_model_is_refused_when_loaded(tmp_path):
    path = tmp_path / "model"
    make_model(rope={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}).save_pretrained(
        path
    )
    make_tokenizer().save_pretrained(path)
    with pytest.raises(UnsupportedModelError, match="'dynamic'"):
        FinchEngine.from_pretrained(path, device="cpu")


def test_the_dtype_follows_device_and_cpu(monkeypatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(loading, "_cpu_has_fast_bfloat16", lambda: False)
    assert loading.resolve_dtype("auto", cpu, {}) == torch.float32
    monkeypatch.setattr(loading, "_cpu_has_fast_bfloat16", lambda: True)
    assert loading.resolve_dtype("auto", cpu, {}) == torch.bfloat16
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert loading.resolve_dtype("auto", cuda, {}) == torch.float16
    assert loading.resolve_dtype("auto", cpu, {"quantization_config": object()}) == "auto"
    assert loading.resolve_dtype("auto", None, {"device_map": "auto"}) == "auto"
    assert loading.resolve_dtype("float16", cpu, {}) == torch.float16


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a GGUF file"),
        (b"PK\x03\x04 something else", "not a GGUF file"),
        (b"GGUF" + b"\x03\x00\x00\x00" + b"\xff" * 40, "damaged or incomplete"),
    ],
)
def test_corrupt_gguf_files_are_named(tmp_path, content, reason):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelLoadError, match=reason):
        FinchEngine.from_pretrained(path, device="cpu")


def test_a_vocabulary_whose_merges_lead_nowhere_is_noticed():
    words = ("capital", "question", "weather")
    whole = [(word[:end], word[end]) for word in words for end in range(1, len(word))]
    whole += [("Ġ", word) for word in words]
    assert gguf.finds_words(make_tokenizer(merges=whole))
    # The same pieces, put together from others that no text leads to.
    tokenizer = make_tokenizer(merges=whole)
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    backend["model"]["merges"] = [["Ġ", word] for word in words]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(backend)))
    assert not gguf.finds_words(tokenizer)


def test_what_transformers_leaves_out_of_a_gguf_tokenizer_is_put_back():
    tokenizer = make_tokenizer(merges=[("1", "2"), ("a", "b")])
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    before = tokenizer("ab 12").input_ids
    gguf.restore_tokenizer(tokenizer, {})
    gguf.restore_tokenizer(tokenizer, {"pre": "default", "add_bos_token": False})
    assert tokenizer("ab 12").input_ids == before
    gguf.restore_tokenizer(tokenizer, {"pre": "smollm", "add_bos_token": True})
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("ab 12").input_ids)
    assert pieces == ["<s>", "ab", "Ġ", "1", "2"]


@pytest.mark.parametrize("architecture", CONFIGS)
def test_a_model_freed_of_its_gguf_record_says_the_same(architecture):
    loaded = make_model(architecture)
    model = gguf.plain_model(loaded, loaded.config)
    assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    ids = torch.arange(1, 90)[None]
    assert torch.equal(model(ids).logits, loaded(ids).logits)


def test_a_hub_that_cannot_be_reached_is_noticed_at_once():
    started = time.monotonic()
    with pytest.raises(ModelLoadError, match="The hub was not asked: it cannot be reached"):
        FinchEngine.from_pretrained("nobody/has-this-model")
    assert time.monotonic() - started < 20
