"""The commands and their options; what they do is in the files next to this one."""

import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from finch_integrations import __version__
from finch_integrations.cli import console
from finch_integrations.cli.group import Group
from finch_integrations.cli.threads import set_threads
from finch_integrations.errors import InvalidInputError
from finch_integrations.files import MAX_FILE_BYTES

app = typer.Typer(
    name="finch",
    cls=Group,
    help="Ask a local model about a whole document set.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


_Paths = Annotated[
    list[str] | None,
    typer.Argument(metavar="PATH", help="Files or folders: txt, md, html, pdf, docx."),
]
_Model = Annotated[
    str,
    typer.Option("--model", "-m", help="'embedded', a hub id, a model folder or a .gguf file."),
]
_Scorer = Annotated[
    str | None,
    typer.Option(help="A smaller model that chooses the passages, named like --model."),
]
_Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, mps (default: the accelerator, or cpu).")
]
_DType = Annotated[str, typer.Option(help="float32, bfloat16, float16 or auto.")]
_FollowLinks = Annotated[
    bool,
    typer.Option(
        "--follow-links", help="Follow links inside folders to other folders and out of them."
    ),
]
_MaxFileSize = Annotated[
    int, typer.Option("--max-file-size", min=1, help="Skip bigger files; in megabytes.")
]
_KeepPassages = Annotated[
    bool,
    typer.Option(
        "--keep-passages",
        help="Keep what was read on disk, for further questions; see finch cache.",
    ),
]
_TargetSize = Annotated[
    str | None,
    typer.Option(
        help="Document tokens to keep; auto: as many as the passages' scores call for "
        "(default: 2048)."
    ),
]
_MAX_MEGABYTES = MAX_FILE_BYTES // 10**6


def _number(value: str | None) -> int | str | None:
    """A number of tokens, or a word such as `auto`, which is checked later."""
    return int(value) if value is not None and value.isdecimal() else value


def _paths(paths: Sequence[str]) -> tuple[Path, ...]:
    if not all(path.strip() for path in paths):
        raise InvalidInputError("a path is empty, which would be the current folder. Give . for it")
    return tuple(map(Path, paths))


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"finch {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Use only models that are on this machine.")
    ] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads that compute (default: torch's).")
    ] = None,
) -> None:
    console.set_quiet(quiet)
    set_threads(threads)
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"


@app.command()
def ask(
    context: typer.Context,
    question: Annotated[str, typer.Argument(help="The question.")],
    paths: _Paths = None,
    index: Annotated[
        Path | None,
        typer.Option("--index", "-i", help="Instead of paths: search this index first."),
    ] = None,
    top_k: Annotated[
        int, typer.Option(help="With --index: passages to find; their documents are compressed.")
    ] = 20,
    max_document_tokens: Annotated[
        int, typer.Option(help="With --index: upper limit of the documents' tokens together.")
    ] = 16384,
    model: _Model = "embedded",
    base_url: Annotated[
        str | None,
        typer.Option(
            help="Let --model of this OpenAI-compatible server answer; --scorer (default: "
            "embedded) chooses passages for it."
        ),
    ] = None,
    api_key_env: Annotated[
        str, typer.Option(help="With --base-url: the environment variable with the server's key.")
    ] = "FINCH_API_KEY",
    scorer: _Scorer = None,
    target_size: _TargetSize = None,
    compression_ratio: Annotated[
        float | None, typer.Option(help="Or: the fraction of the document tokens to remove.")
    ] = None,
    max_kv_bytes: Annotated[
        int | None, typer.Option(help="Or: upper limit of the compressed cache, in bytes.")
    ] = None,
    read_size: Annotated[
        str,
        typer.Option(
            help="Document tokens that the model reads at most; auto: 3/8 of them, but at "
            "most 6,144, and at least three times as many as are kept; or all."
        ),
    ] = "auto",
    chunk_length: Annotated[int, typer.Option(help="Document tokens read per step.")] = 1024,
    method: Annotated[
        str, typer.Option(help="likelihood, contrast, or finch: the paper's own method.")
    ] = "likelihood",
    max_tokens: Annotated[int, typer.Option(help="Upper limit of the answer's tokens.")] = 256,
    temperature: Annotated[float, typer.Option(help="0 is deterministic.")] = 0.0,
    seed: Annotated[int | None, typer.Option(help="Makes sampling repeatable.")] = None,
    schema: Annotated[
        Path | None, typer.Option(help="A file with the JSON schema that the answer follows.")
    ] = None,
    regex: Annotated[
        str | None, typer.Option(help="Or: the regular expression that the answer matches.")
    ] = None,
    device: _Device = None,
    dtype: _DType = "auto",
    follow_links: _FollowLinks = False,
    max_file_size: _MaxFileSize = _MAX_MEGABYTES,
    keep_passages: _KeepPassages = False,
    report: Annotated[
        Path | None, typer.Option(help="Write an HTML page here that shows what was kept.")
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            help="With --report: show next to it what another method, another number of tokens, "
            "or hybrid retrieval would keep; may be repeated."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of text.")
    ] = False,
) -> None:
    """Answer a question from files, or from what an index has on it.

    The answer goes to standard output; progress, sources and statistics go to standard error.
    """
    from finch_integrations.cli.ask import AskOptions, run_ask

    if index is None:
        _refuse_given(context, "top_k", "max_document_tokens", needs=_INDEX)
    if base_url is None:
        _refuse_given(context, "api_key_env", needs=_SERVER)
    elif not _is_given(context, "model"):
        raise InvalidInputError("--base-url needs --model, the name of the server's model")
    run_ask(
        AskOptions(
            question=question,
            paths=_paths(paths or ()),
            index=index,
            retrieval={
                "top_k": top_k,
                "max_document_tokens": max_document_tokens,
                "return_parents": True,
            },
            model=model,
            scorer=scorer,
            base_url=base_url,
            api_key_env=api_key_env,
            device=device,
            dtype=dtype,
            compression={
                "target_size": _number(target_size),
                "compression_ratio": compression_ratio,
                "max_kv_bytes": max_kv_bytes,
                "read_size": _number(read_size),
                "chunk_length": chunk_length,
                "method": method,
            },
            sampling={
                "max_tokens": max_tokens,
                "temperature": temperature,
                "seed": seed,
            },
            schema=schema,
            regex=regex,
            follow_links=follow_links,
            max_file_bytes=max_file_size * 10**6,
            keep_passages=keep_passages,
            report=report,
            compare=tuple(compare or ()),
            as_json=as_json,
        )
    )


_INDEX = (
    "--index: without it all files are read. Leave it out, or make an index of the files with "
    "finch index"
)
_SERVER = "--base-url: without it no server is asked. Leave it out, or name the server"


def _refuse_given(context: typer.Context, *options: str, needs: str) -> None:
    """An option that would do nothing is a mistake."""
    for option in options:
        if _is_given(context, option):
            raise InvalidInputError(f"--{option.replace('_', '-')} needs {needs}")


def _is_given(context: typer.Context, option: str) -> bool:
    source = context.get_parameter_source(option)
    return source is not None and source.name != "DEFAULT"


@app.command()
def chat(
    paths: _Paths = None,
    index: Annotated[
        Path | None,
        typer.Option("--index", "-i", help="Instead of paths: search this index each time."),
    ] = None,
    model: _Model = "embedded",
    scorer: _Scorer = None,
    target_size: _TargetSize = None,
    max_tokens: Annotated[int, typer.Option(help="Upper limit of an answer's tokens.")] = 256,
    temperature: Annotated[float, typer.Option(help="0 is deterministic.")] = 0.0,
    device: _Device = None,
    dtype: _DType = "auto",
    follow_links: _FollowLinks = False,
    max_file_size: _MaxFileSize = _MAX_MEGABYTES,
    keep_passages: _KeepPassages = False,
) -> None:
    """Ask question after question about files; follow-ups cost less than the first question.

    Questions are lines of standard input. Ctrl-C ends an answer, /quit or Ctrl-D the chat.
    """
    from finch_integrations.cli.answering import AnsweringOptions
    from finch_integrations.cli.chat import run_chat

    run_chat(
        AnsweringOptions(
            paths=_paths(paths or ()),
            index=index,
            retrieval={"top_k": 20, "max_document_tokens": 16384, "return_parents": True},
            model=model,
            scorer=scorer,
            device=device,
            dtype=dtype,
            compression={"target_size": _number(target_size)},
            sampling={"max_tokens": max_tokens, "temperature": temperature},
            follow_links=follow_links,
            max_file_bytes=max_file_size * 10**6,
            keep_passages=keep_passages,
        )
    )


@app.command()
def index(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH", help="Files or folders: txt, md, html, pdf, docx."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The index's folder.")],
    encoder: Annotated[
        str,
        typer.Option(
            help="'embedded', a sentence-transformers model, or 'none': search by words only."
        ),
    ] = "embedded",
    chunk_size: Annotated[int, typer.Option(help="Upper limit of a chunk's characters.")] = 1000,
    follow_links: _FollowLinks = False,
    max_file_size: _MaxFileSize = _MAX_MEGABYTES,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Index files for `finch search` and `finch ask --index`, or update an index."""
    from finch_integrations.cli.index import run_index

    run_index(
        _paths(paths),
        out,
        {
            "encoder": None if encoder == "none" else encoder,
            "chunk_size": chunk_size,
            "follow_links": follow_links,
            "max_file_bytes": max_file_size * 10**6,
        },
        as_json=as_json,
    )


@app.command()
def search(
    query: Annotated[str, typer.Argument(help="A question or some words.")],
    index: Annotated[Path, typer.Option("--index", "-i", help="The index's folder.")],
    top_k: Annotated[int, typer.Option(help="Passages to find.")] = 10,
    bm25_weight: Annotated[float, typer.Option(help="0 searches by meaning only.")] = 1.0,
    dense_weight: Annotated[float, typer.Option(help="0 searches by words only.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """Find passages in an index by words and by meaning."""
    from finch_integrations.cli.index import run_search

    run_search(
        query,
        index,
        top_k=top_k,
        options={"bm25_weight": bm25_weight, "dense_weight": dense_weight},
        as_json=as_json,
    )


@app.command()
def serve(
    model: _Model = "embedded",
    scorer: _Scorer = None,
    base_url: Annotated[
        str | None,
        typer.Option(help="An OpenAI-compatible server that has --model and writes the answers."),
    ] = None,
    index: Annotated[
        Path | None,
        typer.Option("--index", "-i", help="Search this index for questions without documents."),
    ] = None,
    host: Annotated[
        str,
        typer.Option(help="Where to listen; beyond this machine FINCH_SERVE_KEY must be set."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8080,
    target_size: _TargetSize = None,
    method: Annotated[
        str, typer.Option(help="likelihood, contrast, or finch: the paper's own method.")
    ] = "likelihood",
    max_tokens: Annotated[int, typer.Option(help="Upper limit of an answer's tokens.")] = 4096,
    max_requests: Annotated[
        int, typer.Option(help="Requests that run or wait; further ones get status 429.")
    ] = 64,
    timeout: Annotated[float, typer.Option(help="Seconds that a request may take.")] = 600.0,
    device: _Device = None,
    dtype: _DType = "auto",
) -> None:
    """Serve a model to OpenAI's clients, many at once; requests may have whole document sets.

    Clients send the documents in the field `documents`, or in the prompt.
    """
    from finch_integrations.cli.serve import run_serve

    run_serve(
        model=model,
        scorer=scorer,
        base_url=base_url,
        index=index,
        host=host,
        port=port,
        device=device,
        dtype=dtype,
        compression={"target_size": _number(target_size), "method": method},
        limits={"max_tokens": max_tokens, "max_requests": max_requests, "timeout": timeout},
    )


@app.command()
def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """List the models on this machine: which, where, how big."""
    from finch_integrations.cli.models import run_models

    run_models(as_json=as_json)


@app.command()
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Delete the passages.")] = False,
    folder: Annotated[
        Path | None, typer.Option(help="The passages' folder (default: in the user's cache).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Show what is kept on disk of documents that a model has read, or delete it."""
    from finch_integrations.cli.cache import run_cache

    run_cache(folder, empty=clear, as_json=as_json)


class Fetchable(StrEnum):
    """What `finch fetch` downloads."""

    MODEL = "model"
    EMBEDDER = "embedder"
    ALL = "all"


@app.command()
def fetch(
    what: Annotated[
        Fetchable,
        typer.Argument(help="The model (93 MB), the embedding model for retrieval (84 MB) or all."),
    ] = Fetchable.MODEL,
) -> None:
    """Download, verify and unpack the embedded models, once."""
    from finch_integrations.cli.models import run_fetch

    run_fetch(model=what != Fetchable.EMBEDDER, embedder=what != Fetchable.MODEL)
