"""The engine on transformers: exact, on a CPU or a GPU, and the yardstick of vLLM's numbers.

engine.py            batches in, log-probabilities out
model.py             the model, loaded and set up
batching.py          which sequences are computed together; prefixes.py: those that begin alike
packed_attention.py  several sequences in one row; varlen_attention.py: in one call, on a GPU
token_head.py        the head on the positions that count
"""
