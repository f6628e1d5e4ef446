"""Token ids -> log-probabilities of the scored tokens.

engine.py               the protocol: sequences with marked positions in, their log-probabilities out
choice.py               which engine measures, and why; the factory that builds it
transformers_engine.py  exact, on a CPU or a GPU; batching.py, prefixes.py, packed_attention.py, token_head.py
vllm_engine.py          fast, on GPUs; vllm_answers.py, vllm_limits.py, vllm_lora.py
hash_engine.py          meaningless numbers without a model, for trying a recipe and for tests
measurement.py          one pass, and the plan that is written down for it
chunks.py               missing sequences -> the chunks that are measured and stored as a whole
loading.py              an engine that is loaded, or given up
watchdog.py             an engine that does not answer: its process ends
trial.py                a chunk whose engine fails or dies: find the guilty sequence, measure the others
ray_measure.py          the Ray Data stage
"""
