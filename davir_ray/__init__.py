"""Choose the training data that a language model can still learn from: DavIR on Ray."""

__version__ = "0.1.0"
