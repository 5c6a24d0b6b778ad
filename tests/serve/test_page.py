"""The page at `/`: what it is made of, what it asks the server, and how it works in a browser."""

import base64
import re
from dataclasses import replace

import pytest

from finch_integrations import Document
from tests.serve import browser
from tests.serve.conftest import serving, until, until_free
from tests.serve.test_chat import Saying, Shelf
from tests.tiny import text_of

DOCUMENTS = [text_of(300, seed=1), text_of(200, seed=2)]
KEPT = {"question": "What is it?", "documents": DOCUMENTS, "target_size": 80}


def encoded(content):
    return base64.b64encode(content).decode()


def test_the_page_and_its_parts_come_from_here_and_may_load_nothing_else(server):
    with server.client() as client:
        pages = [client.get("/"), client.get("/docs")]
        parts = [client.get(f"/page/{name}") for name in ("page.css", "page.js", "icon.svg")]
    for page in pages:
        policy = page.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert "script-src 'self'" in policy
    for response in [*pages, *parts]:
        assert response.status_code == 200
        assert response.headers["x-content-type-options"] == "nosniff"
        elsewhere = re.findall(r"(?:https?:)?//[\w.]+\.\w+", response.text)
        assert set(elsewhere) <= {"http://www.w3.org"}  # the name of SVG
    assert "style=" not in pages[0].text  # the policy would ignore it
    assert "innerHTML" not in parts[1].text


@pytest.mark.parametrize(
    "name", ["other.js", "routes.py", "__init__.py", "..%2fapp.py", "page.css.jinja"]
)
def test_other_files_are_no_parts_of_the_page(server, name):
    with server.client() as client:
        assert client.get(f"/page/{name}").status_code == 404


def test_what_programs_can_send_is_described(server):
    with server.client() as client:
        text = client.get("/docs").text
        schema = client.get("/openapi.json").json()
    for name in schema["components"]["schemas"]["ChatRequest"]["properties"]:
        assert f"<code>{name}</code>" in text
    for path in schema["paths"]:
        assert path in text
    assert "/page/" not in str(list(schema["paths"]))


FILES = [
    ("a.txt", "Grüße".encode(), "Grüße"),
    ("../../etc/passwd.md", b"# Only a name", "# Only a name"),
    ("A.TXT", b"\xff\xfeh\x00i\x00", "hi"),
    ("a.html", b"<html><body><script>bad()</script><h1>Soup</h1></body></html>", "# Soup"),
]


@pytest.mark.parametrize(("name", "content", "text"), FILES)
def test_files_become_text(server, name, content, text):
    response = server.post({"name": name, "content": encoded(content)}, path="/page/read")
    assert response.status_code == 200, response.text
    assert response.json()["text"].strip() == text


@pytest.mark.parametrize(
    "body",
    [
        {"name": "a.exe", "content": encoded(b"x")},
        {"name": "/etc/passwd", "content": encoded(b"x")},
        {"name": "a.txt", "content": "no base64!"},
        {"name": "a.txt", "content": ""},
        {"name": "a.txt", "content": encoded(b"  ")},
        {"name": "a.txt", "content": encoded(b"\xff\xfe\xff")},
        {"name": "a.pdf", "content": encoded(b"no PDF")},
        {"name": "a.docx", "content": encoded(b"PK no zip")},
        {"name": "", "content": ""},
        {"name": "a.txt"},
        {"name": "a.txt", "content": encoded(b"x"), "path": "/etc/passwd"},
    ],
)
def test_what_is_no_readable_file_is_refused(server, body):
    response = server.post(body, path="/page/read")
    assert response.status_code == 400
    assert response.json()["error"]["message"]


@pytest.mark.parametrize("other", [None, "40", "contrast", "finch"])
def test_what_was_kept_is_shown_next_to_another_way(server, other):
    made = server.post({**KEPT, "other": other, "answer": "So it is."}, path="/page/kept")
    assert made.status_code == 200, made.text
    with server.client() as client:
        report = client.get(made.json()["address"])
    assert report.status_code == 200
    assert "sandbox" in report.headers["content-security-policy"]
    assert "80 kept" in report.text
    assert ("compared" in report.text.partition("</head>")[2]) == (other is not None)
    if other:
        assert other in report.text


def test_a_report_shows_documents_of_unknown_origin_as_text(server):
    bad = "<script>alert(1)</script> " + DOCUMENTS[0]
    made = server.post({**KEPT, "documents": [bad]}, path="/page/kept")
    with server.client() as client:
        assert "<script" not in client.get(made.json()["address"]).text


@pytest.mark.parametrize(
    "changes",
    [
        {"documents": []},
        {"documents": None},
        {"question": " "},
        {"target_size": 0},
        {"target_size": "many"},
        {"method": "magic"},
        {"other": "magic"},
        {"other": "0"},
        {"unknown": 1},
    ],
)
def test_what_cannot_be_shown_is_refused(server, changes):
    assert server.post({**KEPT, **changes}, path="/page/kept").status_code == 400
    assert server.service.active == 0


def test_reports_have_secret_names_and_the_oldest_are_forgotten(tmp_path):
    with serving(tmp_path) as running, running.client() as client:
        made = [running.post(KEPT, path="/page/kept").json()["address"] for _ in range(10)]
        assert len(set(made)) == 10
        assert min(map(len, made)) > 30
        found = [client.get(address).status_code for address in made]
    assert found == [404] * 2 + [200] * 8


def test_a_report_is_of_what_the_index_found(tmp_path):
    shelf = Shelf([Document(text, id=f"shelf-{n}") for n, text in enumerate(DOCUMENTS)])
    with serving(tmp_path, retriever=shelf) as running, running.client() as client:
        assert "The index of this server" in client.get("/").text
        made = running.post({**KEPT, "documents": None}, path="/page/kept")
        assert "shelf-1" in client.get(made.json()["address"]).text


def test_with_a_key_the_page_is_shown_and_does_nothing_without_it(tmp_path):
    with serving(tmp_path, api_key="s3cret") as running, running.client() as client:
        assert "Key of this server" in client.get("/").text
        assert client.get("/page/page.js").status_code == client.get("/docs").status_code == 200
        for path in ("/page/read", "/page/kept"):
            assert client.post(path, json=KEPT).status_code == 401
        headers = {"Authorization": "Bearer s3cret"}
        made = client.post("/page/kept", json=KEPT, headers=headers)
        # A frame sends no key: the name is one.
        assert client.get(made.json()["address"]).status_code == 200
        assert client.get("/page/kept/short").status_code == 401


def test_a_model_that_keeps_nothing_has_no_report(tmp_path):
    with serving(tmp_path, model=Saying("x")) as running:
        assert running.post(KEPT, path="/page/kept").status_code == 501


def many_colours(image):
    """Whether there is more than an empty frame."""
    return len(image.getcolors(1 << 20)) > 20


IS_DONE = "document.getElementById('state').textContent === 'Done.'"


@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.slow
@pytest.mark.skipif(browser.PATH is None, reason="there is no Chromium on this machine")
def test_in_a_browser_people_ask_stop_and_see_what_was_kept(reachable, tmp_path):
    address, service = reachable
    files = [tmp_path / f"{number}.txt" for number in range(3)]
    for number, file in enumerate(files):
        file.write_text(f"<b>{number}</b> {text_of(300, seed=number)}", encoding="utf-8")
    profile = tmp_path / "profile"
    with browser.browsing(profile) as page:
        page.look(1280)
        page.open(address)
        # Nothing was given yet: the page says so, and asks the server nothing.
        page.run("document.getElementById('question').focus()")
        page.type("What is it?")
        page.press("Enter", 13, modifiers=2)
        page.until("!document.getElementById('problem').hidden")
        page.give_files("#chosen", files)
        page.until("document.querySelectorAll('#list li').length === 3")
        page.run("document.querySelector('#list button').click()")
        page.until("document.querySelectorAll('#list li').length === 2")
        # The keyboard is enough.
        page.run("document.getElementById('budget').value = '60'")
        page.run("document.getElementById('question').focus()")
        page.press("Enter", 13, modifiers=2)
        page.until(IS_DONE)
        assert page.text("#answer").strip()
        assert "60 of" in page.text("#facts")
        page.run("document.querySelector('#compare button').click()")
        page.until("!document.getElementById('report').hidden")
        report = page.run("document.getElementById('report').src")
        for width, dark in ((1280, False), (390, False), (390, True)):
            page.look(width, 2400, dark=dark)
            # Both ways are in it, and none of it is a browser's own white.
            until(lambda: many_colours(page.picture_of("#report")))
            brightest = page.picture_of("#report").resize((40, 40)).convert("L").getextrema()[1]
            assert not dark or brightest < 235
        # A long answer is stopped, there and here.
        service.settings = replace(service.settings, default_tokens=3000)
        page.run("document.getElementById('send').click()")
        page.until("document.getElementById('answer').textContent.length > 2")
        assert service.active == 1
        page.press("Escape", 27)
        page.until("document.getElementById('state').textContent === 'Stopped.'")
        until_free(service)
        assert page.run("!document.getElementById('send').disabled")
        for width, dark in ((390, False), (390, True), (1280, True)):
            page.look(width, dark=dark)
            assert page.run("document.documentElement.scrollWidth <= innerWidth")
            assert page.run("getComputedStyle(document.body).backgroundColor") == (
                "rgb(20, 23, 29)" if dark else "rgb(255, 255, 255)"
            )
        # All that is to be pressed has a name and is large enough for a finger.
        assert page.run(
            "[...document.querySelectorAll('button, select, input, textarea')]"
            ".filter(e => e.offsetParent && e.type !== 'file')"
            ".every(e => (e.labels?.length || e.textContent.trim()) && e.offsetHeight >= 30)"
        )
        page.open(report)
        # Documents are called what the files are called.
        assert page.run("document.body.textContent.includes('1.txt')")
        assert not page.run("document.body.textContent.includes('doc-1')")
        assert page.run("document.querySelectorAll('mark').length") > 0
        page.open(address + "docs")
        assert page.run("document.documentElement.scrollWidth <= innerWidth")
    assert page.problems == []
    assert {request.partition(":")[0] for request in page.requests} <= {"http", "about", "data"}
    assert all(request.startswith((address, "about:", "data:")) for request in page.requests), (
        page.requests
    )
