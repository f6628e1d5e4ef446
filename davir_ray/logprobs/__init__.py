'''Token ids -> log-probabilities of the tokens that count.

    engine.py       the protocol: sequences with marked positions in, their log-probabilities (and more) out
    choice.py       which engine measures, and why; the factory that builds it
    switching.py    which models one engine can measure in turn
    custom.py       engines by import path
    hf/             transformers: exact, on a CPU or a GPU
    vllm/           fast, on GPUs
    hash_engine.py  meaningless numbers without a model, for trying a recipe and for tests

An engine of your own is a class in any module that the driver and the workers can import. In `my_engines.py`:

    import numpy as np
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    class OneByOne:
        """The model's own code, one sequence at a time."""

        def __init__(self, model_path, *, adapter_path, dtype, device, max_length):
            self.settings = {"dtype": dtype, "device": device, "max_length": max_length}
            model = AutoModelForCausalLM.from_pretrained(model_path, dtype=getattr(torch, dtype))
            model = PeftModel.from_pretrained(model, adapter_path) if adapter_path else model
            self.model = model.to(device).eval()

        def logprobs(self, sequences):
            return [self.measure(one) for one in sequences]

        def measure(self, one):
            ids = torch.from_numpy(one.ids.astype(np.int64)).to(self.model.device)
            with torch.inference_mode():
                logits = self.model(input_ids=ids[None]).logits[0, :-1].float()
            every = logits.log_softmax(-1).gather(1, ids[1:, None])[:, 0]
            return every.cpu().numpy()[one.scored[1:]]

        def close(self):
            del self.model

        def switch(self, model):  # if you like: see below
            self.close()
            self.__init__(model.model_path, adapter_path=model.adapter_path, **self.settings)

and in the recipe `engine: {type: my_engines:OneByOne}`. It is made with all five arguments, always: adapter_path is
None, or the folder of the LoRA adapter with which the model is to be measured; dtype is `float32` or `bfloat16`, device
`cpu` or `cuda`, max_length the longest sequence in tokens. Its numbers are stored under its import path, dtype, device
and the source of the module that defines it: after an edit all is measured anew. What else the module imports is not
looked at. A class with `token_values` as well can give ranks and entropies of tokens (`TokenEngine` in engine.py).

With `switch` one process measures base and reference in turn; without it each has its own. `model` has the `model_path`
and `adapter_path` of the other model, which may be the base again. What was loaded is still there: free it first. If it
raises, the process ends, and another makes an engine for that model. A `switch` that a class inherits does not count
where the class has an `__init__` of its own.
'''
