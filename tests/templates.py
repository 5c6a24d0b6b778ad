"""Chat templates that show tools, as those of several model families do, in short."""

_BEGIN = "{% for m in messages %}"
_END = "{% endfor %}"

# Qwen 2.5, Hermes: tags around JSON; results are user turns.
HERMES = (
    "{% if tools %}<|im_start|>system\n"
    "{% if messages[0].role == 'system' %}{{ messages[0].content }}\n\n{% endif %}"
    "<tools>{% for tool in tools %}\n{{ tool | tojson }}{% endfor %}\n</tools><|im_end|>\n"
    "{% elif messages[0].role == 'system' %}<|im_start|>system\n"
    "{{ messages[0].content }}<|im_end|>\n{% endif %}"
    + _BEGIN
    + "{% if m.role == 'user' or (m.role == 'assistant' and not m.tool_calls) %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% elif m.role == 'assistant' %}<|im_start|>assistant"
    "{% if m.content %}\n{{ m.content }}{% endif %}"
    "{% for c in m.tool_calls %}{% set f = c.function %}"
    "{{ '\n' }}"
    '<tool_call>\n{"name": "{{ f.name }}", "arguments": {{ f.arguments | tojson }}}\n</tool_call>'
    "{% endfor %}<|im_end|>\n"
    "{% elif m.role == 'tool' %}"
    "{% if loop.first or messages[loop.index0 - 1].role != 'tool' %}<|im_start|>user{% endif %}"
    "\n<tool_response>\n{{ m.content }}\n</tool_response>"
    "{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}<|im_end|>\n{% endif %}"
    "{% endif %}" + _END + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# Llama 3.1: bare JSON, one call a turn, results as JSON strings.
LLAMA = (
    "{% if tools %}<|im_start|>system\nFunctions:{% for tool in tools %}\n{{ tool | tojson }}"
    "{% endfor %}<|im_end|>\n{% endif %}"
    + _BEGIN
    + "{% if m.tool_calls %}{% if m.tool_calls | length != 1 %}"
    "{{ raise_exception('This model only supports single tool-calls at once!') }}{% endif %}"
    "{% set f = m.tool_calls[0].function %}<|im_start|>assistant\n"
    '{"name": "{{ f.name }}", "parameters": {{ f.arguments | tojson }}}<|im_end|>\n'
    "{% elif m.role == 'tool' %}<|im_start|>ipython\n{{ m.content | tojson }}<|im_end|>\n"
    "{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}"
    + _END
    + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# Mistral 0.3: a list of calls after a special token, ids of nine characters, strict alternation.
MISTRAL = (
    "{% set ns = namespace(index=0) %}{% for m in messages %}"
    "{% if m.role == 'user' or (m.role == 'assistant' and not m.tool_calls) %}"
    "{% if (m.role == 'user') != (ns.index % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% set ns.index = ns.index + 1 %}{% endif %}{% endfor %}"
    + _BEGIN
    + "{% if m.role == 'user' %}"
    "{% if tools and m == (messages | selectattr('role', 'eq', 'user') | list)[-1] %}"
    "[AVAILABLE_TOOLS] {{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}"
    "[INST] {{ m.content }}[/INST]"
    "{% elif m.tool_calls %}[TOOL_CALLS] [{% for c in m.tool_calls %}"
    "{% if c.id | length != 9 %}{{ raise_exception('ids must have nine characters') }}{% endif %}"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}, '
    '"id": "{{ c.id }}"}{% if not loop.last %}, {% endif %}{% endfor %}]<|im_end|>'
    "{% elif m.role == 'tool' %}"
    "{% if m.tool_call_id | length != 9 %}{{ raise_exception('ids') }}{% endif %}"
    '[TOOL_RESULTS] {"content": {{ m.content | tojson }}}[/TOOL_RESULTS]'
    "{% elif m.role == 'system' %}{{ raise_exception('no system role') }}"
    "{% else %}{{ m.content }}<|im_end|>{% endif %}" + _END
)

# Mistral 3: the name after a special token, the arguments after another.
TEKKEN = (
    "{% if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}"
    + _BEGIN
    + "{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]"
    "{% elif m.role == 'system' %}[SYSTEM]{{ m.content }}[/SYSTEM]"
    "{% elif m.role == 'tool' %}[TOOL_RESULTS]{{ m.content }}[/TOOL_RESULTS]"
    "{% else %}{{ m.content }}{% for c in m.tool_calls %}"
    "[TOOL_CALLS]{{ c.function.name }}[ARGS]{{ c.function.arguments | tojson }}{% endfor %}"
    "<|im_end|>{% endif %}" + _END
)

# DeepSeek V3: arguments as a string, in a fence.
DEEPSEEK = (
    "{% for tool in tools %}{{ tool | tojson }}{% endfor %}"
    + _BEGIN
    + "{% if m.role == 'assistant' and m.tool_calls %}<assistant><calls>{% for c in m.tool_calls %}"
    "{{ '<call>function<sep>' + c.function.name + '\n```json\n' + c.function.arguments "
    "+ '\n```</call>' }}{% if not loop.last %}{{ '\n' }}{% endif %}{% endfor %}</calls><|im_end|>"
    "{% elif m.role == 'tool' %}<output>{{ m.content }}</output>"
    "{% else %}<{{ m.role }}>{{ m.content }}<|im_end|>{% endif %}"
    + _END
    + "{% if add_generation_prompt %}<assistant>{% endif %}"
)

# Qwen 3 Coder: arguments as tags, which are not JSON.
TAGS = HERMES.replace(
    '{"name": "{{ f.name }}", "arguments": {{ f.arguments | tojson }}}',
    "<function={{ f.name }}>{% for k, v in f.arguments | items %}"
    "<parameter={{ k }}>{{ v }}</parameter>{% endfor %}</function>",
)

# Qwen 3: thoughts in tags, which can be turned off.
THINKING = HERMES.replace(
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n",
    "<|im_start|>{{ m.role }}\n{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n"
    "</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n",
).replace(
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}",
)
# gpt-oss: thoughts and answer in channels.
CHANNELS = (
    _BEGIN
    + "<|start|>{{ m.role }}{% if m.role == 'assistant' %}<|channel|>final{% endif %}<|message|>"
    "{{ m.content }}<|end|>" + _END + "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
# DeepSeek R1: the generation prompt begins the thoughts.
ALWAYS_THINKING = HERMES.replace(
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}",
).replace("{{ m.content }}<|im_end|>\n", "{{ m.content.split('</think>')[-1] }}<|im_end|>\n")
