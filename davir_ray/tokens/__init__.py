"""Examples -> token ids with the counted positions marked.

tokenizer.py    a model's tokenizer and chat template; agreement.py compares two
rendering.py    an example -> ids and marks, by template: chat.py, templates.py (alpaca, plain), masks.py
tool_calls.py   the form in which a template takes calls; not_read.py: which keys it leaves out
views.py        the sequences of an example: response, response_alone, rejected; completions.py: those of TRL's DPO
pieces.py       tokens as letters; preview.py: tokens for people to look at
"""
