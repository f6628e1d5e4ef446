"""The engine on vLLM.

engine.py   requests for prompt log-probabilities
answers.py  what vLLM answers -> log-probabilities
limits.py   how much it is given at once; lora.py: adapters
"""
