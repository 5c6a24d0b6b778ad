"""`finch chat`: questions from a pipe and by hand, on a tiny model."""

import signal
import subprocess
import sys
import time
from functools import partial

import pytest
from typer.testing import CliRunner

from finch_integrations import FinchEngine
from finch_integrations.cli import chat as chatting
from finch_integrations.cli.app import app
from finch_integrations.pipeline.rag import FinchRAG, WholeSet
from finch_integrations.pipeline.shared_engine import SharedEngine
from finch_integrations.types import CompressionProgress
from tests.tiny import make_model, make_tokenizer, text_of

QUESTIONS = ["What is new?", "And what is old?"]
SMALL = ("--target-size", "50", "--max-tokens", "8")


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a.txt").write_text(text_of(300, seed=1))
    (folder / "b.txt").write_text(text_of(200, seed=2))
    return folder


def command(model_folder, files, *more):
    place = ("--model", model_folder, "--device", "cpu", "--dtype", "float32")
    return ["chat", str(files), *place, *SMALL, *more]


def converse(model_folder, files, *lines):
    return CliRunner().invoke(app, command(model_folder, files), input="".join(lines))


def expected_answers(model_folder, files, questions):
    documents = [{"text": p.read_text(), "id": str(p)} for p in sorted(files.iterdir())]
    history, answers = [], []
    with FinchEngine.from_pretrained(model_folder, device="cpu", dtype="float32") as engine:
        for question in questions:
            context = engine.compress(documents, question, history=history, target_size=50)
            answers.append(engine.generate(context, max_tokens=8).text)
            history += [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answers[-1]},
            ]
    return answers


def test_piped_questions_are_answered_in_turn_each_after_the_chat_so_far(model_folder, files):
    result = converse(model_folder, files, *(f"{question}\n" for question in QUESTIONS))
    assert result.exit_code == 0, result.output
    assert result.stdout == "".join(
        f"{answer}\n" for answer in expected_answers(model_folder, files, QUESTIONS)
    )
    assert "read before" in result.stderr


def test_empty_lines_are_no_questions_and_quit_ends_the_chat(model_folder, files):
    result = converse(model_folder, files, "\n", "  \n", f"{QUESTIONS[0]}\n", "/quit\n", "What?\n")
    (answer,) = expected_answers(model_folder, files, QUESTIONS[:1])
    assert (result.exit_code, result.stdout) == (0, f"{answer}\n")


def test_sources_are_shown_when_asked_for(model_folder, files):
    result = converse(model_folder, files, "/sources\n", f"{QUESTIONS[0]}\n", "/sources\n")
    before, after = result.stderr.split("document tokens", 1)
    assert "There is no answer yet." in before
    assert "Sources" not in before
    assert f"{files}/a.txt" in after.partition("Sources")[2]


def test_a_new_chat_knows_nothing_of_the_old_one(model_folder, files):
    result = converse(model_folder, files, f"{QUESTIONS[0]}\n", "/new\n", f"{QUESTIONS[1]}\n")
    answers = [expected_answers(model_folder, files, [question])[0] for question in QUESTIONS]
    assert result.stdout == "".join(f"{answer}\n" for answer in answers)


def test_an_unknown_command_is_no_question(model_folder, files):
    result = converse(model_folder, files, "/help\n")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "/help is unknown: /sources shows" in result.stderr


def test_a_question_of_a_pipe_that_fails_ends_with_an_error(model_folder, files):
    # Longer than the model's window.
    result = converse(model_folder, files, f"{text_of(3000)}\n", f"{QUESTIONS[0]}\n")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Shorten the question" in result.stderr


def test_nothing_is_answered_without_files(model_folder):
    result = CliRunner().invoke(app, ["chat", "--model", model_folder], input="What?\n")
    assert result.exit_code == 1
    assert "give files or folders to read, or --index" in result.stderr


def make_chat(texts, **compression):
    shared = SharedEngine(FinchEngine(make_model(), make_tokenizer()))
    whole = WholeSet(texts)
    compression = {"target_size": 50, **compression}
    rag = FinchRAG(whole, shared, compression=compression, sampling={"max_tokens": 8})
    return chatting._Chat(rag, shared, whole.documents)


def test_the_oldest_turns_are_forgotten_aloud_when_they_fill_the_window(capsys):
    chat = make_chat([text_of(300)])
    questions = [f"{number} {text_of(150, seed=number)}?" for number in range(4)]
    for question in questions:
        assert chat._answer(question)
    assert chat.history[-2]["content"] == questions[-1]
    assert 0 < len(chat.history) < 8
    window = chat.model.engine.window
    assert chat.model.engine.count_chat_tokens(chat.history) <= window // 4
    assert "oldest questions are forgotten" in capsys.readouterr().err


def test_documents_are_read_while_the_user_types(monkeypatch):
    chat = make_chat([text_of(300, seed=1), text_of(200, seed=2)])
    store = chat.model.engine.store

    def type_slowly(prompt):
        deadline = time.monotonic() + 60
        while store.nbytes == 0 or chat.rag.read_ahead(chat.documents):
            assert time.monotonic() < deadline
        return f" {QUESTIONS[0]} "

    monkeypatch.setattr("builtins.input", type_slowly)
    assert chat._next_line(asked_by_hand=True) == QUESTIONS[0]
    assert chat._answer(QUESTIONS[0])
    stats = chat.last.details.compression
    assert stats.read_tokens == 0 < stats.rated_tokens


def test_reading_ahead_ends_when_the_user_has_typed():
    stop = chatting._Stop()
    progress = CompressionProgress(tokens=1, total_tokens=2, seconds=1.0)
    stop(progress)
    stop.set()
    with pytest.raises(chatting._Stopped):
        stop(progress)


def test_ctrl_c_while_typing_does_not_end_the_chat(monkeypatch, capsys):
    chat = make_chat(["Short."])
    typed = iter([KeyboardInterrupt, EOFError])

    def interrupted(prompt):
        raise next(typed)

    monkeypatch.setattr("builtins.input", interrupted)
    assert chat._next_line(asked_by_hand=True) is None
    assert "/quit ends the chat" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="signals of consoles differ there")
def test_an_answer_with_a_nul_character_is_no_obstacle_to_the_next_question(model_folder, files):
    arguments = command(model_folder, files, "--target-size", "50", "--max-tokens", "100")
    asked = CliRunner().invoke(app, arguments, input="What is new?\nAnd what is old?\n")
    assert "\0" in asked.stdout  # as this random model happens to write
    assert asked.exit_code == 0, asked.output
    assert asked.stderr.count("compressed in") == 2


def test_ctrl_c_ends_the_answer_and_not_the_chat(model_folder, files):
    arguments = command(model_folder, files, "--max-tokens", "1500")
    process = subprocess.Popen(
        [sys.executable, "-m", "finch_integrations", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores SIGINT, and its children inherit that.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    process.stdin.write("What is new?\n")
    process.stdin.flush()
    assert process.stdout.read(1)  # the answer has begun
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate("/sources\n", timeout=120)
    assert process.returncode == 0, errors
    assert "cancelled" in errors
    assert "There is no answer yet." in errors
    assert len(output) < 1500
