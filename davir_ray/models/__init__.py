"""Where a model lies, and what it is.

resolve.py             a folder, hub id or URI -> a local folder and a content hash
fetch.py               its files brought to this machine
adapter.py             a LoRA adapter: what it changes, and whether it fits
safetensors_header.py  shapes of tensors, without their data
"""
