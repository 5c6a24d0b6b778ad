"""Which part of a prompt is the question."""

from finch_integrations.pipeline.questions import find_question


def test_a_question_before_the_documents_is_its_paragraph_without_what_introduces_it():
    before = "You help visitors.\n\nWho won the race?\n\nUse the following context:\n"
    documents = "Ada won the race."
    text = before + documents
    start, end = find_question(text, [(len(before), len(text))])
    assert text[start:end] == "Who won the race?"
