"""Token ids -> log-probabilities of the tokens that count.

engine.py       the protocol: sequences with marked positions in, their log-probabilities out
choice.py       which engine measures, and why; the factory that builds it
hf/             transformers: exact, on a CPU or a GPU
vllm/           fast, on GPUs
hash_engine.py  meaningless numbers without a model, for trying a recipe and for tests
"""
