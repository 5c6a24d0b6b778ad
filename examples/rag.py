"""From a folder of files to an answer with citations.

python examples/rag.py "What is the door code of the chemical store?" examples/station-handbook

The index is kept in the working directory; a second run reads only changed files.
`finch fetch all` downloads the two models first. Instead of the embedded model, which is a
demonstration, name one of 3B or more.
"""

import argparse

from finch_integrations import FinchRAG, HybridRetriever, index_files


def main() -> None:
    """Index the files, answer the question, name the sources."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("question")
    parser.add_argument("paths", nargs="+")
    parser.add_argument("--index", default="handbook.index")
    parser.add_argument("--model", default="embedded")
    arguments = parser.parse_args()

    index_files(arguments.paths, arguments.index)
    rag = FinchRAG(
        HybridRetriever.load(arguments.index),
        arguments.model,
        compression={"target_size": 1024},
        sampling={"max_tokens": 40},
    )
    # Twelve passages are found; the whole documents that they are from are compressed.
    options = {"top_k": 12, "max_document_tokens": 6000, "return_parents": True}
    for piece in rag.stream(arguments.question, **options):
        print(piece.text, end="", flush=True)
    assert piece.answer is not None
    print("\n\nCited:")
    for citation in piece.answer.citations:
        place = f"{citation.source}, characters {citation.source_start}-{citation.source_end}"
        print(f"  {place}, under {citation.section!r}: {citation.text}")
    print("Read:")
    for share in piece.answer.details.document_shares:
        print(f"  {share.kept_share:4.0%} of {share.id}")


if __name__ == "__main__":
    main()
