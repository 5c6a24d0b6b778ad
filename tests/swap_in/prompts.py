"""Prompts that were written for other models: name, public source, system text, human text."""

from langchain_classic.chains.conversational_retrieval import prompts as conversational
from langchain_classic.chains.qa_with_sources import stuff_prompt as with_sources
from langchain_classic.chains.question_answering import stuff_prompt

RAG = (
    "You are an assistant for question-answering tasks. Use the following pieces of retrieved "
    "context to answer the question. If you don't know the answer, just say that you don't know. "
    "Use three sentences maximum and keep the answer concise."
)
LAST = [
    "Chat History:\nHuman: Hello there.\nAI: Hi, how can I help?",
    "Instructions:\n- Cite the page.\n- Never guess.",
    "User profile: Ann, 42, prefers short answers.",
    "Antworte immer auf Deutsch.",
    "Never reveal the door codes to anybody.",
    "Closing rules: " + "Stay polite, stay brief and stay on the topic of the station. " * 7,
    "Answer in German:",
]
Q = "{question}"
C = "{context}"

PROMPTS = [
    ("rag-prompt", "hub rlm/rag-prompt", None, f"{RAG}\nQuestion: {Q} \nContext: {C} \nAnswer:"),
    ("qa default", "langchain_classic question_answering", None, stuff_prompt.PROMPT.template),
    (
        "qa chat default",
        "langchain_classic question_answering",
        stuff_prompt.messages[0].prompt.template,
        Q,
    ),
    (
        "sources default",
        "langchain_classic qa_with_sources",
        None,
        with_sources.PROMPT.template.replace("{summaries}", C),
    ),
    (
        "conversational qa",
        "langchain_classic conversational_retrieval",
        None,
        conversational.QA_PROMPT.template,
    ),
    (
        "retrieval-qa-chat",
        "hub langchain-ai/retrieval-qa-chat",
        f"Answer any use questions based solely on the context below:\n\n<context>\n{C}\n</context>",
        Q,
    ),
    ("old tutorial", "LangChain RAG tutorial", f"{RAG}\n\n{C}", Q),
    (
        "local rag",
        "LangGraph local RAG example",
        None,
        "You are an assistant for question-answering tasks.\n\nHere is the context to use to answer the "
        f"question:\n\n{C}\n\nThink carefully about the above context.\n\nNow, review the user question:"
        f"\n\n{Q}\n\nProvide an answer to this questions using only the above context.\n\n"
        "Use three sentences maximum and keep the answer concise.\n\nAnswer:",
    ),
    (
        "step-back",
        "LangChain cookbook: step-back",
        None,
        "You are an expert of world knowledge. I am going to ask you a question. Your response should be "
        "comprehensive and not contradicted with the following context if they are relevant. Otherwise, "
        f"ignore them if they are not relevant.\n\n{C}\n\nOriginal Question: {Q}\nAnswer:",
    ),
    (
        "chat-langchain",
        "langchain-ai/chat-langchain",
        "You are an expert programmer. Using the provided context, answer the user's question.\n\n"
        f"<context>\n    {C}\n<context/>\n\nREMEMBER: If there is no relevant information within the "
        "context, just say \"Hmm, I'm not sure.\" Anything between the preceding 'context' html blocks "
        "is retrieved from a knowledge bank, not part of the conversation with the user.",
        Q,
    ),
    (
        "wikipedia",
        "LangChain citations how-to",
        "You're a helpful AI assistant. Given a user question and some Wikipedia article snippets, "
        f"answer the user question.\n\nHere are the Wikipedia articles:{C}",
        Q,
    ),
    (
        "based on",
        "LangChain multi-query cookbook",
        None,
        f"Answer the following question based on this context:\n\n{C}\n\nQuestion: {Q}\n",
    ),
    (
        "answer this question",
        "LangGraph adaptive RAG",
        None,
        f"Based on the following context, answer this question: {Q}\n\n{C}",
    ),
    (
        "only context",
        "LangChain LCEL quickstart",
        None,
        f"Answer the question based only on the following context:\n{C}\n\nQuestion: {Q}\n",
    ),
    (
        "markdown",
        "common blog form",
        None,
        f"### Context\n{C}\n\n### Question\n{Q}\n\n### Answer\n",
    ),
    ("documents", "common blog form", None, f"Documents:\n{C}\n\nQuestion: {Q}"),
    ("reference", "common blog form", None, f"Reference:\n{C}\n\nUser question: {Q}\nYour answer:"),
    ("brackets", "common blog form", None, f"[CONTEXT]\n{C}\n[/CONTEXT]\n\n[QUESTION]\n{Q}"),
    ("open brackets", "common blog form", None, f"[CONTEXT]\n{C}\n\n[QUESTION]\n{Q}"),
    ("fence", "OpenAI cookbook form", None, f"Use the text in back-ticks.\n```\n{C}\n```\nQ: {Q}"),
    ("quotes", "OpenAI cookbook form", None, f'Answer from:\n"""\n{C}\n"""\n\nQuestion: {Q}'),
    (
        "search results",
        "Anthropic form",
        "Use the results.",
        f"<search_results>\n{C}\n</search_results>\n\n<question>{Q}</question>",
    ),
    ("docs tags", "Anthropic form", None, f"<docs>{C}</docs>\n\nAnswer: {Q}"),
    (
        "german",
        "German form",
        "Du hilfst gern.",
        f"Nutze ausschließlich den folgenden Kontext.\n\nKontext:\n{C}\n\nFrage: {Q}\nAntwort:",
    ),
    ("german system", "German form", f"Beantworte die Frage nur mit diesen Auszügen:\n\n{C}", Q),
    (
        "french",
        "French form",
        None,
        f"Réponds à la question à partir du contexte.\n\nContexte : {C}\n\nQuestion : {Q}\nRéponse :",
    ),
    ("chinese", "Chinese form", None, f"已知信息：\n{C}\n\n根据上述已知信息回答。问题是：\n{Q}"),
    ("spanish", "Spanish form", None, f"Contexto:\n{C}\n\nPregunta: {Q}\n\nRespuesta:"),
    (
        "middleware",
        "LangChain docs: RetrieveDocumentsMiddleware",
        None,
        f"{Q}\n\nUse the following context to answer the query:\n{C}",
    ),
    (
        "dynamic prompt",
        "LangChain docs: 2-step RAG",
        f"You are a helpful assistant. Use the following context in your response:\n\n{C}",
        Q,
    ),
    ("question only after", "plain", None, f"{C}\n\n{Q}"),
    ("question only before", "plain", None, f"{Q}\n\n{C}"),
    ("in the middle", "plain", None, f"Be kind.\n{C}\nBe brief.\nMy question: {Q}\nBe honest."),
    (
        "ruled",
        "LlamaIndex form",
        None,
        f"Context information is below.\n---------------------\n{C}\n---------------------\n"
        f"Given the context information and not prior knowledge, answer the query.\nQuery: {Q}\nAnswer: ",
    ),
    *[
        (f"after the context {n}", "issue", f"Use the context.\n\nContext:\n{C}\n\n{text}", Q)
        for n, text in enumerate(LAST)
    ],
    *[
        (
            f"before the question {n}",
            "issue",
            None,
            f"Use the context.\n\nContext: {C}\n\n{text}\n\nQuestion: {Q}\nHelpful Answer:",
        )
        for n, text in enumerate(LAST)
    ],
]

# Written after the code, tried once.
UNSEEN = [
    (
        "u email",
        "own",
        "Write the reply to the customer.",
        f"Ticket: {Q}\n\nKnowledge base hits:\n\n{C}\n\nTone: formal. Sign as 'Support'.",
    ),
    ("u italian", "own", None, f"Fonti:\n{C}\n\nDomanda: {Q}\nRispondi in due frasi."),
    (
        "u xml",
        "own",
        f"<role>lawyer</role>\n<sources>\n{C}\n</sources>\n<rules>cite</rules>",
        f"<query>{Q}</query>",
    ),
    ("u japanese", "own", None, f"次の文書だけを使ってください。\n\n{C}\n\n質問：{Q}\n回答："),
    ("u yaml", "own", None, f"context: |\n{C}\nquestion: {Q}\nlanguage: de"),
    ("u latex", "own", None, f"\\begin{{{{docs}}}}\n{C}\n\\end{{{{docs}}}}\nTask: {Q}"),
    (
        "u persona",
        "own",
        f"You are Marvin.\n\n{C}\n\nYou are gloomy. Never use the word 'happy'.",
        Q,
    ),
    ("u steps", "own", None, f"1) Read:\n{C}\n2) Answer: {Q}\n3) Stop."),
    ("u numbered", "own", None, f"Q: {Q}\nEvidence:\n{C}\nVerdict (true/false):"),
    ("u twice", "own", f"Remember the question: {Q}", f"Evidence: {C}\n\nAgain, the question: {Q}"),
]

# Of other styles, written after all of the code.
STYLES = [
    (
        "s json in system",
        "own",
        '{{"role": "clerk", "rules": ["cite", "be brief"], "knowledge": "see below"}}\n{context}\n'
        '{{"output": {{"answer": "string", "sources": "list"}}}}',
        Q,
    ),
    (
        "s yaml in system",
        "own",
        "persona: clerk\nrules:\n  - cite\n  - never guess\nknowledge: |\n{context}\noutput: yaml",
        f"ask: {Q}",
    ),
    (
        "s transcript",
        "own",
        None,
        f"USER: {Q}\nTOOL search -> 3 hits\n{C}\nTOOL end\nASSISTANT (in two sentences, polite):",
    ),
    (
        "s code fence with language",
        "own",
        "Answer questions about files.",
        f'```text\n{C}\n```\n\n{Q}\n\n```json\n{{{{"answer": null}}}}\n```',
    ),
    (
        "s japanese with rules",
        "own",
        "あなたは案内係です。必ず敬語で答えてください。",
        f"【参考資料】\n{C}\n【質問】\n{Q}\n【注意】資料にないことは答えないでください。",
    ),
    (
        "s arabic",
        "own",
        "أجب باللغة العربية فقط.",
        f"السياق:\n{C}\n\nالسؤال: {Q}\nلا تذكر المصادر.",
    ),
    ("s hindi", "own", None, f"संदर्भ:\n{C}\n\nप्रश्न: {Q}\nउत्तर हिंदी में दें।"),
    (
        "s mixed languages",
        "own",
        "Du bist Hafenmeister. Reply in the language of the question.",
        f"Voici les extraits :\n{C}\n\nPregunta del usuario: {Q}\nDanke! Bitte kurz.",
    ),
    (
        "s html",
        "own",
        None,
        f"<html><body><h1>Report</h1>\n<div id='kb'>\n{C}\n</div>\n<p class='q'>{Q}</p>"
        "<footer>Confidential: do not quote names.</footer></body></html>",
    ),
    (
        "s markdown table and tasks",
        "own",
        "# Tasks\n- [ ] read\n- [ ] answer\n\n| key | value |\n|---|---|\n| tone | dry |",
        f"## Material\n\n{C}\n\n---\n\n## Ask\n\n{Q}\n\n## Never\n\n- speculate",
    ),
    ("s csv like", "own", None, f"question;{Q}\ncontext;{C}\nformat;one line;no quotes"),
    (
        "s legal clauses",
        "own",
        f"§ 1 The clerk answers from § 2 only.\n§ 2\n{C}\n§ 3 The clerk names no person.",
        Q,
    ),
    (
        "s chat log in one message",
        "own",
        None,
        f"Ann: Hello!\nBob: Hi, what is it?\nAnn: {Q}\n[attachment]\n{C}\n[/attachment]\nBob:",
    ),
]
