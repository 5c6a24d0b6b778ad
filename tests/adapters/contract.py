"""What users may expect of every adapter, whatever its framework; run by both frameworks' tests.

`AdapterContract` is for all classes that use a model, `AnswerContract` for those that answer.
"""

import asyncio
import pickle
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from finch_integrations import (
    CompressionConfig,
    ConfigurationError,
    Constraint,
    ContextTooLongError,
    Document,
    FinchEngine,
    FinchError,
    InvalidInputError,
    SamplingParams,
    UnsupportedModelError,
)
from finch_integrations.engine import loading
from finch_integrations.engine.generate import join_responses
from finch_integrations.pipeline.shared_engine import SharedEngine
from tests.heartbeat import count_beats
from tests.tiny import DYNAMIC, make_model, make_tokenizer, text_of

Q = "Where is it?"
TEXTS = [text_of(150, seed=1), text_of(120, seed=2)]
CONFIG = CompressionConfig(chunk_length=40, method="finch", pooling="max")


class AdapterContract:
    """Options, loading and sharing. Subclasses say which class it is."""

    adapter: Any

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"temprature": 1}, "has no option 'temprature'; known: "),
            ({"target_size": 0}, "target_size must be a whole number"),
            ({"target_size": 5, "compression_ratio": 0.5}, "give one budget"),
            ({"max_kv_bytes": 5, "compression_ratio": 0.5}, "give one budget"),
            ({"compression": {"pooling": "x"}}, "pooling must be one of"),
            ({"compression": {"polling": "max"}}, "did you mean 'pooling'"),
            ({"compression": {"target_size": 5}}, "give target_size directly"),
            (
                {"compression": CompressionConfig(target_size=5), "compression_ratio": 0.5},
                "give one budget, got compression_ratio and, inside compression=…, target_size",
            ),
            ({"model": 5}, "model must be a name"),
            ({"model": "embedded", "model_name": "embedded"}, "another name of model"),
            ({"tokenizer": object()}, "Leave the tokenizer out"),
            ({"scorer": 5}, "model must be a name.*got int"),
            ({"scorer": "x", "compression": {"method": "finch"}}, "a scorer .* does nothing in"),
        ],
    )
    def test_wrong_options_are_named_when_it_is_made(self, options, reason):
        with pytest.raises(ConfigurationError, match=reason):
            self.adapter(**options)

    def test_unknown_options_name_the_class(self):
        with pytest.raises(ConfigurationError, match=f"{self.adapter.__name__} has no option"):
            self.adapter(targetsize=3)

    def test_a_configuration_is_taken_apart(self):
        config = CompressionConfig(target_size=33, chunk_length=40)
        one = self.adapter(compression=config)
        other = self.adapter(compression={"chunk_length": 40}, target_size=33)
        assert one._compression() == {
            **vars_of(CompressionConfig(chunk_length=40)),
            "target_size": 33,
        }
        assert other._compression() == {"chunk_length": 40, "target_size": 33}
        direct = self.adapter(compression=CONFIG, max_kv_bytes=5000)
        assert direct._compression() == {**vars_of(CONFIG), "max_kv_bytes": 5000}

    def test_constructing_loads_nothing_and_adapters_of_a_process_share(self, folder):
        first, second = self.adapter(model=folder), self.adapter(model=str(folder))
        assert first.model == second.model == str(folder)
        assert not first.handle.loaded
        assert first.warm_up() is first
        assert second.handle.engine is first.handle.engine
        first.close()
        assert not second.handle.loaded

    def test_how_to_load_reaches_the_model(self, folder):
        options = {"device": "cpu", "dtype": "float64", "model_kwargs": {"local_files_only": True}}
        adapter = self.adapter(model=folder, **options)
        assert str(adapter.warm_up().handle.engine.backbone.model.dtype) == "torch.float64"
        assert adapter.handle != self.adapter(model=folder).handle
        assert self.adapter(model=folder, revision="x").handle != self.adapter(model=folder).handle
        adapter.close()

    def test_a_loaded_model_is_taken_with_its_tokenizer(self, model, tokenizer):
        own = self.adapter(model=model, tokenizer=tokenizer)
        assert own.model == "LlamaForCausalLM"
        assert own.handle.engine.backbone.model is model
        engine = FinchEngine(model, tokenizer)
        for taken in (self.adapter(engine=engine), self.adapter(model=engine)):
            assert taken.handle.engine is engine
        shared = SharedEngine(engine)
        assert self.adapter(engine=shared).handle is shared
        for options, reason in (
            ({"model": model}, "needs its tokenizer"),
            ({"model": engine, "tokenizer": tokenizer}, "leave tokenizer out"),
            ({"engine": shared, "tokenizer": tokenizer}, "leave tokenizer out"),
            ({"engine": engine, "device": "cpu", "revision": "x"}, "revision, device cannot be"),
            ({"model": "embedded", "engine": engine}, "two models are given: 'embedded' and"),
            ({"model": model, "engine": engine}, "given twice"),
        ):
            with pytest.raises(ConfigurationError, match=reason):
                self.adapter(**options)
        with pytest.raises(UnsupportedModelError):
            self.adapter(model=make_model(rope=DYNAMIC), tokenizer=tokenizer)

    def test_copies_and_pickles_carry_no_weights(self, folders, engine):
        named = self.adapter(model=folders[0], scorer=folders[1])
        loaded = pickle.loads(pickle.dumps(named))
        assert loaded.handle == named.handle
        assert not loaded.handle.loaded
        ready = self.adapter(engine=engine)
        assert ready.model_copy(deep=True).handle.engine is engine
        for holding in (ready, self.adapter(scorer=engine)):
            with pytest.raises(FinchError, match="cannot be pickled"):
                pickle.dumps(holding)

    def test_another_model_can_be_set_where_none_was_handed_over(self, folder, engine):
        named = self.adapter(model="embedded")
        named.model = str(folder)
        assert named.handle == SharedEngine(folder)
        ready = self.adapter(engine=engine)
        ready.model = "other"
        with pytest.raises(ConfigurationError, match="two models are given: 'other' and"):
            _ = ready.handle

    def test_it_shows_no_secret(self):
        adapter = self.adapter(model_kwargs={"token": "hf_secret", "x": 1})
        assert "hf_secret" not in repr(adapter) + str(adapter.model_dump())

    # A smaller model chooses the passages

    def test_a_scorer_by_its_name_chooses(self, folders):
        large, small = folders
        adapter = self.adapter(model=large, scorer=small, device="cpu", dtype="float64")
        assert not adapter.handle.loaded
        engine = adapter.handle.engine
        assert len(engine.scorer.backbone.layer_devices) == 1
        assert str(engine.scorer.backbone.model.dtype) == "torch.float64"
        assert adapter.handle.engine is engine
        assert self.adapter(model=large, device="cpu", dtype="float64").handle != adapter.handle
        adapter.close()

    def test_a_scorer_may_be_loaded_already(self, folder, engine, model, tokenizer):
        small = FinchEngine(make_model(num_hidden_layers=1), tokenizer)
        for scorer in (small, SharedEngine(small)):
            named = self.adapter(model=folder, scorer=scorer)
            ready = self.adapter(engine=engine, scorer=scorer)
            own = self.adapter(model=model, tokenizer=tokenizer, scorer=scorer)
            for adapter in (named, ready, own):
                assert adapter.handle.engine.scorer is small
                assert adapter.handle.has_scorer
                assert adapter.handle.engine is adapter.handle.engine
                adapter.close()
        assert small.compress(["text"], Q).stats.kept_tokens == 4  # nobody has closed it
        guided = FinchEngine(model, tokenizer, scorer=small)
        with pytest.raises(ConfigurationError, match="two scorers are given"):
            self.adapter(engine=guided, scorer=small)
        with pytest.raises(ConfigurationError, match="has a scorer, which would do nothing"):
            self.adapter(scorer=guided)

    def test_closing_leaves_a_scorer_to_others(self, folders):
        large, small = folders
        both, alone = self.adapter(model=large, scorer=small), self.adapter(model=small)
        weights = alone.warm_up().handle.engine.backbone
        assert both.warm_up().handle.engine.scorer.backbone is weights
        both.close()
        assert alone.handle.engine.backbone is weights
        both.warm_up()
        alone.close()
        assert not alone.handle.loaded
        assert both.handle.engine.scorer.backbone is weights  # still leased
        both.close()
        assert alone.warm_up().handle.engine.backbone is not weights
        alone.close()


def vars_of(config):
    names = CompressionConfig.__dataclass_fields__.keys()
    values = {name: getattr(config, name) for name in names}
    budgets = ("target_size", "compression_ratio", "max_kv_bytes")
    return {n: value for n, value in values.items() if n not in budgets or value is not None}


@dataclass(frozen=True)
class Answer:
    """What every framework's answer says, under one set of names."""

    text: str
    prompt_tokens: int
    generated_tokens: int
    finish_reason: str
    model: str
    finch: dict


class AnswerContract(AdapterContract):
    """Answers, streams and calls. Subclasses also say how to ask."""

    def ask(self, llm, question, **options) -> Answer:
        raise NotImplementedError

    async def aask(self, llm, question, **options) -> Answer:
        raise NotImplementedError

    def stream(self, llm, question, **options):
        """Yield the pieces of text."""
        raise NotImplementedError

    def astream(self, llm, question, **options):
        raise NotImplementedError

    @pytest.fixture
    def llm(self, engine):
        return self.adapter(engine=engine, max_tokens=8, target_size=60)

    @pytest.fixture
    def forwards(self, model):
        """The lengths of what is fed to the model."""
        lengths = []
        model.register_forward_pre_hook(
            lambda _, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
        )
        return lengths

    @pytest.fixture
    def slow(self, model, forwards):
        """Slows every forward down, and counts them."""
        model.register_forward_pre_hook(lambda *_: time.sleep(0.01))
        return forwards

    # Answers

    def test_the_text_is_the_engines_new_text_only(self, llm, engine):
        expected = join_responses(engine.chat([{"role": "user", "content": Q}], max_tokens=8))
        answer = self.ask(llm, Q)
        assert answer.text == expected.text
        assert answer.prompt_tokens == expected.prompt_tokens
        assert answer.generated_tokens == 8
        assert answer.finish_reason == "length"
        assert answer.model == f"LlamaForCausalLM {engine.backbone.fingerprint[-16:-8]}"
        assert answer.finch["documents_from"] == "none"

    def test_documents_are_compressed_as_the_engine_compresses_them(self, llm, engine):
        documents = [{"text": TEXTS[0], "id": "a", "title": "T"}, {"text": TEXTS[1]}]
        answer = self.ask(llm, Q, documents=documents)
        context = engine.compress(documents, Q, target_size=60)
        assert answer.text == engine.generate(context, max_tokens=8).text
        assert answer.prompt_tokens == context.prompt_tokens
        assert answer.finch["documents_from"] == "argument"
        assert answer.finch["documents"] == 2
        assert answer.finch["document_tokens"] == context.stats.document_tokens
        assert answer.finch["kept_tokens"] == 60
        assert answer.finch["compression_ratio"] == context.stats.compression_ratio
        scores = answer.finch["document_scores"]
        assert [(s["document_id"], s["title"]) for s in scores] == [("a", "T"), ("doc-2", None)]
        assert sum(s["kept_tokens"] for s in scores) == pytest.approx(60)

    @pytest.mark.parametrize(
        "documents",
        [TEXTS, tuple(TEXTS), [Document(t) for t in TEXTS], [{"text": t} for t in TEXTS]],
    )
    def test_documents_of_every_kind_are_taken(self, llm, engine, documents):
        context = engine.compress(TEXTS, Q, target_size=60)
        expected = engine.generate(context, max_tokens=8).text
        assert self.ask(llm, Q, documents=documents).text == expected

    @pytest.mark.parametrize(
        ("documents", "reason"),
        [
            ("text", "documents must be a list .*, got str"),
            ([5], r"documents\[0\] must be .*, got int"),
            ([{"body": "x"}], r"documents\[0\] must have its text under one of .*'body'"),
            (["  "], r"all of documents are blank \(1\)"),
        ],
    )
    def test_unusable_documents_are_named(self, llm, documents, reason):
        with pytest.raises(InvalidInputError, match=reason):
            self.ask(llm, Q, documents=documents)

    async def test_streams_and_async_calls_say_the_same(self, llm):
        text = self.ask(llm, Q, documents=TEXTS).text
        pieces = list(self.stream(llm, Q, documents=TEXTS))
        assert len(pieces) > 1
        assert "".join(pieces) == text
        assert (await self.aask(llm, Q, documents=TEXTS)).text == text
        assert "".join([p async for p in self.astream(llm, Q, documents=TEXTS)]) == text

    def test_stop_strings_end_the_answer_and_are_left_out(self, engine):
        sampling = {"max_tokens": 60, "temperature": 1.0, "seed": 3}
        llm = self.adapter(engine=engine, **sampling)
        text = self.ask(llm, Q).text
        stop = text[20:23]
        assert len(stop) == 3
        always = self.adapter(engine=engine, **sampling, stop=[stop])
        for answer in (self.ask(llm, Q, stop=[stop]), self.ask(always, Q)):
            assert answer.text == text[: text.find(stop)]
            assert answer.finish_reason == "stop"
        assert "".join(self.stream(llm, Q, stop=[stop])) == text[: text.find(stop)]
        assert self.ask(always, Q, stop=["never said"]).text == text

    def test_too_long_messages_are_an_error_not_cut(self, llm, model):
        window = model.config.max_position_embeddings
        with pytest.raises(ContextTooLongError, match=f"window of {window} tokens"):
            self.ask(llm, text_of(window + 50))
        assert self.ask(llm, text_of(window - 100)).text

    def test_a_long_prompt_without_documents_is_reported_once(self, llm, caplog):
        prompt = "Answer from what is written below.\n" + text_of(100)
        first, second = (self.ask(llm, f"{prompt}\n{question}") for question in (Q, "When is it?"))
        assert first.finch["documents_from"] == second.finch["documents_from"] == "none"
        (record,) = caplog.records
        assert f"about {first.prompt_tokens} tokens" in record.message
        assert "target_size is 60" in record.message
        for way in ("format_docs", "documents=", "context_patterns", "evidence"):
            assert way in record.message

    def test_a_prompt_that_is_too_long_says_how_documents_are_found(self, llm, model):
        window = model.config.max_position_embeddings
        with pytest.raises(ContextTooLongError) as error:
            self.ask(llm, text_of(window + 50))
        for way in ("format_docs", "documents=", "context_patterns", "evidence"):
            assert way in str(error.value)
        with pytest.raises(ContextTooLongError) as error:
            self.ask(llm, text_of(window + 50), documents=TEXTS)
        assert "context_patterns" not in str(error.value)

    @pytest.mark.parametrize(
        "options", [{"documents": []}, {"context_detection": "off"}, {"documents": TEXTS}]
    )
    def test_who_says_where_documents_are_is_not_warned(self, llm, caplog, options):
        assert self.ask(llm, text_of(100), **options).text
        assert not [record for record in caplog.records if record.levelname == "WARNING"]

    def test_no_documents_at_all_are_a_chat_without_documents(self, llm):
        marked = f"<document>{TEXTS[0]}</document>\n\n{Q}"
        answer = self.ask(llm, marked, documents=[])
        assert answer.finch["documents_from"] == "none"
        assert answer.text == self.ask(llm, marked, context_detection="off").text
        with pytest.raises(InvalidInputError, match="no documents were recognised"):
            self.ask(llm, marked, documents=[], strict=True)

    def test_blank_documents_are_set_aside(self, llm):
        answer = self.ask(llm, Q, documents=["  ", *TEXTS, {"text": ""}])
        assert answer.finch["documents"] == 2
        assert answer.text == self.ask(llm, Q, documents=TEXTS).text

    # Options

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"temperature": -1}, "temperature must be 0, or at least"),
            ({"max_tokens": 0}, "max_tokens must be a whole number"),
            ({"max_tokens": 5, "max_new_tokens": 5}, "another name of max_tokens"),
            ({"context_patterns": [re.compile("x")]}, "no group named 'context'"),
        ],
    )
    def test_wrong_options_of_answers_are_named_when_it_is_made(self, options, reason):
        with pytest.raises(ConfigurationError, match=reason):
            self.adapter(**options)

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"temprature": 1}, "a call takes no option 'temprature'; known: "),
            ({"temperature": -1}, "temperature must be 0, or at least"),
            ({"stop": [""]}, "stop must hold non-empty strings"),
            ({"target_size": 5, "compression_ratio": 0.5}, "give one budget"),
            ({"context_detection": "maybe"}, "one of auto, marked, longest, off, got 'maybe'"),
            ({"model": 5}, "must name a model, got int"),
        ],
    )
    def test_wrong_options_of_a_call_are_named(self, llm, options, reason):
        with pytest.raises(ConfigurationError, match=reason):
            self.ask(llm, Q, **options)

    def test_what_hosted_models_take_is_accepted(self):
        self.adapter(api_key="secret", timeout=60, max_retries=2)

    @pytest.mark.parametrize("compression", [CONFIG, {"method": "finch", "chunk_length": 40}])
    def test_options_reach_the_engine(self, engine, compression):
        sampling = {"max_tokens": 20, "temperature": 0.7, "top_p": 0.9, "top_k": 20, "seed": 5}
        llm = self.adapter(
            engine=engine,
            **sampling,
            target_size=70,
            compression=compression,
            instruction="Please say:",
        )
        fields = compression if isinstance(compression, dict) else vars_of(compression)
        context = engine.compress(TEXTS, Q, instruction="Please say:", target_size=70, **fields)
        answer = self.ask(llm, Q, documents=TEXTS)
        assert answer.text == engine.generate(context, **sampling).text
        assert answer.finch["kept_tokens"] == 70

    @pytest.mark.parametrize("name", ["max_completion_tokens", "max_new_tokens", "num_predict"])
    def test_other_names_of_options_mean_the_same(self, engine, name):
        text = self.ask(self.adapter(engine=engine, max_tokens=3), Q).text
        assert self.ask(self.adapter(engine=engine, **{name: 3}), Q).text == text
        assert self.ask(self.adapter(engine=engine), Q, **{name: 3}).text == text
        with pytest.raises(ConfigurationError, match="another name of max_tokens"):
            self.adapter(engine=engine, max_tokens=3, **{name: 3})

    @pytest.mark.parametrize(
        ("name", "instead"),
        [
            ("num_ctx", "the model's whole window is used"),
            ("generate_kwargs", "write its options directly"),
            ("pipeline_kwargs", "write its options directly"),
            ("tokenizer_name", "the model's own tokenizer is used"),
            ("do_sample", "write temperature=0"),
            ("device_map", "write model_kwargs="),
            ("keep_alive", "a model stays loaded until close"),
            ("format", "write response_format"),
            ("base_url", r"wrap its model \(llm=…\)"),
        ],
    )
    def test_what_other_makers_options_are_here_is_said(self, llm, name, instead):
        with pytest.raises(
            ConfigurationError, match=f"has no option '{name}'; {name}: .*{instead}"
        ):
            self.adapter(**{name: 1})
        with pytest.raises(
            ConfigurationError, match=f"takes no option '{name}'; {name}: .*{instead}"
        ):
            self.ask(llm, Q, **{name: 1})

    def test_one_stop_string_needs_no_list(self, engine):
        sampling = {"max_tokens": 60, "temperature": 1.0, "seed": 3}
        said = self.ask(self.adapter(engine=engine, **sampling), Q).text
        for options in ({"stop": said[4]}, {"stop_sequences": [said[4]]}):
            assert (
                self.ask(self.adapter(engine=engine, **sampling, **options), Q).text
                == (said[: said.index(said[4])])
            )
        assert (
            self.ask(self.adapter(engine=engine, **sampling), Q, stop=said[4]).text
            == (said[: said.index(said[4])])
        )

    @pytest.mark.parametrize(
        "sampling",
        [
            {"repetition_penalty": 1.5},
            {"repeat_penalty": 1.5},
            {"presence_penalty": 1.0, "frequency_penalty": 0.5},
            {"temperature": 1.0, "seed": 1, "min_p": 0.3},
        ],
    )
    def test_penalties_and_min_p_reach_the_engine(self, llm, engine, sampling):
        own = {**sampling}
        if "repeat_penalty" in own:
            own["repetition_penalty"] = own.pop("repeat_penalty")
        chat = [{"role": "user", "content": Q}]
        expected = join_responses(engine.chat(chat, max_tokens=8, **own)).text
        assert self.ask(llm, Q, **sampling).text == expected
        made = self.adapter(engine=engine, max_tokens=8, **sampling)
        assert self.ask(made, Q).text == expected

    def test_a_revision_can_be_given_per_call(self, folder, engine):
        named = self.adapter(model=str(folder))
        assert named._read_call({"revision": "x"}).handle._settings["revision"] == "x"
        assert named._read_call({"revision": "x"}).handle != named.handle
        assert named._read_call({}).handle == named.handle
        # The revision belongs to one model only.
        old = self.adapter(model=str(folder), revision="old")
        assert old._read_call({}).handle._settings["revision"] == "old"
        other = old._read_call({"model": "other/model"}).handle
        assert other._settings["revision"] is None
        other = old._read_call({"model": "other/model", "revision": "new"}).handle
        assert other._settings["revision"] == "new"
        with pytest.raises(ConfigurationError, match="already loaded"):
            self.adapter(engine=engine)._read_call({"revision": "x"})

    def test_options_of_a_call_come_before_the_adapters(self, llm, engine):
        sampling = {"max_tokens": 20, "temperature": 0.7, "seed": 5}
        answer = self.ask(llm, Q, documents=TEXTS, compression_ratio=0.5, **sampling)
        context = engine.compress(TEXTS, Q, compression_ratio=0.5)
        assert answer.text == engine.generate(context, **sampling).text
        assert self.ask(llm, Q, max_new_tokens=3).generated_tokens == 3

    def test_a_budget_in_bytes_is_one_of_the_whole_cache(self, engine):
        per_token = engine.backbone.spec.kv_bytes_per_token
        llm = self.adapter(engine=engine, max_kv_bytes=200 * per_token, max_tokens=1)
        statistics = self.ask(llm, Q, documents=TEXTS).finch
        assert statistics["kept_tokens"] < 200
        assert statistics["kv_bytes"] <= 200 * per_token

    def test_the_scores_can_decide_how_much_is_kept(self, engine):
        llm = self.adapter(engine=engine, target_size="auto", max_tokens=1)
        statistics = self.ask(llm, Q, documents=TEXTS).finch
        stats = engine.compress(TEXTS, Q, target_size="auto").stats
        assert statistics["kept_tokens"] == stats.kept_tokens < stats.document_tokens
        assert statistics["limited_by"] == stats.limited_by
        fixed = self.ask(llm, Q, documents=TEXTS, target_size=60).finch
        assert (fixed["kept_tokens"], fixed["limited_by"]) == (60, "budget")

    def test_a_ready_engines_defaults_hold(self, model, tokenizer):
        engine = FinchEngine(
            model,
            tokenizer,
            compression=CompressionConfig(target_size=33),
            sampling=SamplingParams(max_tokens=4),
        )
        answer = self.ask(self.adapter(engine=engine), Q, documents=TEXTS)
        assert answer.finch["kept_tokens"] == 33
        assert answer.generated_tokens == 4

    def test_template_variables_reach_the_template(self, model):
        engine = FinchEngine(model, make_tokenizer("{{ mood }} {{ messages[0]['content'] }}"))
        calm = self.adapter(engine=engine, chat_template_kwargs={"mood": "calm"}, max_tokens=1)
        assert self.ask(calm, "Hi").prompt_tokens == len("calm Hi")
        called = self.ask(calm, "Hi", chat_template_kwargs={"mood": "x"})
        assert called.prompt_tokens == len("x Hi")

    def test_strict_and_detection_can_be_set_per_call(self, llm):
        prompt = f"Context: {TEXTS[0]}\n\n\nQuestion: {Q}"
        assert self.ask(llm, prompt).finch["documents_from"] == "pattern"
        for mode in ("marked", "off"):
            answer = self.ask(llm, prompt, context_detection=mode)
            assert answer.finch["documents_from"] == "none"
        with pytest.raises(InvalidInputError, match="strict is on"):
            self.ask(llm, prompt, strict=True)

    def test_own_patterns_and_instruction(self, engine):
        llm = self.adapter(
            engine=engine,
            max_tokens=8,
            target_size=60,
            context_patterns=[r"(?s)DOCS(?P<context>.*)ASK(?P<question>.*)"],
            instruction="Say:",
        )
        prompt = {"system": "DOCS", "instruction": "ASK\n\nSay:"}
        context = engine.compress([TEXTS[0]], Q, target_size=60, **prompt)
        expected = engine.generate(context, max_tokens=8).text
        assert self.ask(llm, f"DOCS {TEXTS[0]} ASK {Q}").text == expected

    def test_a_constraint_of_a_call_is_obeyed(self, llm):
        constraint = Constraint.choice(["yes", "no"])
        assert self.ask(llm, Q, constraint=constraint).text in ("yes", "no")

    def test_unusable_tools_are_named(self, llm):
        with pytest.raises(InvalidInputError, match="tool 1 must be a function"):
            self.ask(llm, Q, tools=[{"title": "x"}])

    # Streams, cancelling, several calls at once

    def test_tokens_arrive_while_the_model_works(self, llm, slow):
        seen = [len(slow) for _ in self.stream(llm, Q, max_tokens=30)]
        assert seen[0] < 15
        assert len(slow) == 30

    def test_leaving_a_stream_stops_the_decoding(self, llm, slow):
        for _ in self.stream(llm, Q, max_tokens=1000):
            break
        begun = len(slow)
        assert settled(slow) <= begun + 1

    @pytest.mark.parametrize("how", ["break", "aclose", "cancel aask", "cancel astream"])
    async def test_leaving_and_cancelling_stop_the_decoding(self, llm, slow, how):
        if how == "break":
            async for _ in self.astream(llm, Q, max_tokens=1000):
                break
            await asyncio.sleep(0.05)  # the event loop closes what was left
        elif how == "aclose":
            stream = self.astream(llm, Q, max_tokens=1000)
            await anext(stream)
            await stream.aclose()
        else:

            async def read():
                async for _ in self.astream(llm, Q, max_tokens=1000):
                    pass

            reading = read() if "astream" in how else self.aask(llm, Q, max_tokens=1000)
            await cancel(asyncio.create_task(reading), lambda: slow)
        begun = len(slow)
        assert await asyncio.to_thread(settled, slow) <= begun + 1

    async def test_cancelling_stops_a_compression(self, llm, slow):
        options = {"documents": [text_of(1500)], "chunk_length": 10}
        await cancel(asyncio.create_task(self.aask(llm, Q, **options)), lambda: len(slow) >= 5)
        begun = len(slow)
        assert await asyncio.to_thread(settled, slow) <= begun + 2  # a chunk and its question

    @pytest.mark.parametrize("what", ["aask", "astream"])
    async def test_the_event_loop_is_never_blocked(self, llm, slow, what):
        async with count_beats() as beats:
            if what == "aask":
                await self.aask(llm, Q, max_tokens=20)
            else:
                assert [p async for p in self.astream(llm, Q, max_tokens=20)]
        assert beats[0] > 15

    async def test_the_event_loop_runs_on_while_a_model_is_loaded(self, folder, monkeypatch):
        """The load waits for the loop, which never comes if it is blocked."""
        begun, ran_on = threading.Event(), threading.Event()
        waited = []
        load = loading._load

        def load_later(*arguments):
            begun.set()
            waited.append(ran_on.wait(2))
            return load(*arguments)

        monkeypatch.setattr(loading, "_load", load_later)
        llm = self.adapter(model=folder, max_tokens=1)
        asking = asyncio.create_task(self.aask(llm, Q))
        while not begun.is_set():
            await asyncio.sleep(0.005)
        ran_on.set()
        await asking
        llm.close()
        assert waited == [True]

    async def test_concurrent_calls_do_not_disturb_each_other(self, llm):
        questions = [f"What is {number}?" for number in range(5)]
        alone = [self.ask(llm, question, documents=TEXTS).text for question in questions]
        assert len(set(alone)) > 1
        together = await asyncio.gather(*(self.aask(llm, q, documents=TEXTS) for q in questions))
        assert [answer.text for answer in together] == alone

    def test_streams_can_be_read_in_turns(self, llm):
        sampled = [{"seed": seed, "temperature": 1.0} for seed in (1, 2)]
        streams = [self.stream(llm, Q, **options) for options in sampled]
        alone = [self.ask(llm, Q, **options).text for options in sampled]
        read = ["", ""]
        for pieces in zip(*streams, strict=False):
            for number, piece in enumerate(pieces):
                read[number] += piece
        for number in (0, 1):
            assert read[number]
            assert alone[number].startswith(read[number])

    async def test_errors_while_the_model_works_reach_the_caller(self, llm, model):
        class Broken(Exception):
            pass

        def fail(*_):
            raise Broken

        hook = model.register_forward_pre_hook(fail)
        with pytest.raises(Broken):
            self.ask(llm, Q)
        with pytest.raises(Broken):
            await self.aask(llm, Q)
        hook.remove()
        assert self.ask(llm, Q).text

    # Models by name

    def test_a_call_can_name_another_model(self, folder, llm):
        answer = self.ask(llm, Q, model=str(folder))
        assert answer.model == str(folder)
        assert answer.text == self.ask(llm, Q).text  # the same weights
        self.adapter(model=folder).close()

    def test_loading_in_one_call_makes_another_wait(self, folder):
        llms = [self.adapter(model=folder, max_tokens=3) for _ in range(3)]
        with ThreadPoolExecutor(3) as pool:
            texts = set(pool.map(lambda llm: self.ask(llm, Q).text, llms))
        assert len(texts) == 1
        llms[0].close()
        assert self.ask(llms[1], Q).text in texts  # loads again
        llms[1].close()

    def test_what_a_scorer_chooses_is_answered_from(self, engine, forwards):
        small = FinchEngine(make_model(num_hidden_layers=1), make_tokenizer())
        llm = self.adapter(engine=engine, scorer=small, max_tokens=8, target_size=60)
        answer = self.ask(llm, Q, documents=TEXTS)
        prompt = answer.prompt_tokens - answer.finch["document_tokens"]
        assert sum(forwards) == prompt + 60 + 7  # it read nothing but what was chosen
        alone = self.adapter(engine=engine, max_tokens=8, target_size=60)
        assert llm.handle.identity != alone.handle.identity
        with pytest.raises(ConfigurationError, match="does nothing in the method 'finch'"):
            self.ask(llm, Q, documents=TEXTS, method="finch")


def settled(slow):
    """Wait until no forward is added any more; return their number."""
    count = -1
    while count != len(slow):
        count = len(slow)
        time.sleep(0.1)
    return count


async def cancel(task, when):
    while not when():
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
