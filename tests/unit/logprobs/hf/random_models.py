"""Tiny random models of many architectures, calls with everything in them, and the truth by plain transformers."""

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from davir_ray.logprobs.engine import TokenSequence

BOTH = frozenset({"rank", "entropy"})
NEAR = 2e-4
"""Logits that are nearer than this may change places between two ways of computing them in float32."""
VOCABULARY = 199
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,  # large, so that a wrong mask or position shows
    "init_std": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
EXTRA = {
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 256},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "cohere": {"logit_scale": 0.3},
    "granite": {"logits_scaling": 3.0, "residual_multiplier": 0.5, "embedding_multiplier": 2.0},
    "gemma2": {"final_logit_softcapping": 3.0, "attn_logit_softcapping": 2.0, "sliding_window": 24},
    "gemma3_text": {"final_logit_softcapping": 3.0, "sliding_window": 64},
    "mistral": {"sliding_window": 64},
}


def save(folder, model_type, seed=0, **changes):
    torch.manual_seed(seed)
    config = AutoConfig.for_model(model_type, **{**SMALL, **EXTRA.get(model_type, {}), **changes})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return str(folder)


def sequence_of(*parts):
    """Build a sequence from (ids, scored) parts."""
    ids = np.concatenate([np.asarray(ids) for ids, _ in parts]).astype(np.int32)
    return TokenSequence(ids, np.concatenate([np.full(len(ids), scored) for ids, scored in parts]))


def mixed_call(seed=0):
    """Make a call with everything in it: a template header, pairs, repeats, prefixes of others, odd masks."""
    rng = np.random.default_rng(seed)

    def draw(count):
        return rng.integers(3, VOCABULARY, count)

    header, prompt, other = draw(20), draw(18), draw(33)
    call = [
        sequence_of((header, False), (draw(n), False), (draw(m), True))
        for n, m in rng.integers(1, 25, (12, 2))
    ]
    call += [sequence_of((header, False), (prompt, False), (draw(n), True)) for n in (5, 5, 9)]
    call += [sequence_of((other, False), (draw(n), True)) for n in (1, 1, 30)]
    turn = draw(20)
    call += [sequence_of((other, False), (turn, True), (draw(4), False), (draw(n), True)) for n in (3, 6)]
    call += [sequence_of((other, False), (turn, True)), call[0], call[0]]
    call += [
        sequence_of((header[:1], False), (header[1:], True)),
        sequence_of((header, False), (draw(1), True)),
    ]
    call += [sequence_of((draw(1), False), (draw(1), True)), sequence_of((draw(1), False), (draw(99), True))]
    odd = sequence_of((header, False), (draw(30), True), (draw(2), False))
    odd.scored[25:40:2] = False
    return [*call, odd]


def one_row_at_a_time(model, sequences):
    """Compute log-probabilities with plain transformers: no padding, no batch, float32."""
    rows = []
    for sequence in sequences:
        ids = torch.from_numpy(sequence.ids.astype(np.int64))
        with torch.no_grad():
            logits = model(input_ids=ids[None], use_cache=False).logits[0].float()
        every = torch.log_softmax(logits[:-1], -1).gather(1, ids[1:, None])[:, 0].numpy()
        rows.append(every[sequence.scored[1:]])
    return rows


def save_adapter(folder, llama):
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_pretrained(llama)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    adapted.save_pretrained(folder)
    return str(folder), adapted.eval()


def rows_of_logits(model, sequences):
    """Compute the logits [S, V] of each sequence's scored tokens by plain transformers, in float64 from there on."""
    for sequence in sequences:
        ids = torch.from_numpy(sequence.ids.astype(np.int64))
        with torch.no_grad():
            logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1].double().numpy()
        yield logits[sequence.scored[1:]], sequence.ids[sequence.scored]


def assert_true(found, model, sequences, near=NEAR):
    """Compare log-probabilities, entropies and ranks, the last as far as float32 decides them."""
    decided = []
    for values, (logits, targets) in zip(found, rows_of_logits(model, sequences), strict=True):
        logprobs = torch.log_softmax(torch.from_numpy(logits), -1).numpy()
        chosen = logprobs[np.arange(len(targets)), targets]
        entropy = -np.where(logprobs == -np.inf, 0, np.exp(logprobs) * np.nan_to_num(logprobs)).sum(-1)
        np.testing.assert_allclose(values.logprobs, chosen, rtol=near / 10, atol=near / 10)
        np.testing.assert_allclose(values.entropy, entropy, rtol=near / 10, atol=near / 10)
        own = logits[np.arange(len(targets)), targets][:, None]
        fewest, most = (1 + (logits > own + gap).sum(-1) for gap in (near, -near))
        most -= 1  # the token itself
        assert (np.minimum(fewest, 100) <= values.rank).all()
        assert (values.rank <= np.minimum(most, 100)).all()
        decided += ((most == fewest) | (fewest >= 100)).tolist()
        assert (values.rank.dtype, values.entropy.dtype) == (np.uint8, np.float32)
    assert np.mean(decided) > 0.95


def plain(folder, **options):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options).eval()
