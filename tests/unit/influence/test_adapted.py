"""What a watched model refuses, and what it does when layers are computed twice."""

import numpy as np
import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from transformers import (
    FalconConfig,
    FalconForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from davir_ray.errors import ModelError
from davir_ray.influence import gradients
from davir_ray.influence.adapted import AdaptedModel
from davir_ray.influence.gradients import mean_loss_weights, visit_gradients
from davir_ray.logprobs.engine import TokenSequence
from tests.tiny_adapted import VOCABULARY, flat, sequences, tiny_adapted


def gradients_of(model, rows):
    found = {}
    visit_gradients(
        model, rows, mean_loss_weights(rows), lambda name, some: found.update({name: some.clone()})
    )
    return flat(found)


def test_a_layer_that_drops_states_in_training_drops_none_when_it_is_computed_twice(monkeypatch):
    torch.manual_seed(0)
    config = FalconConfig(
        vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, hidden_dropout=0.5
    )
    lora = LoraConfig(r=4, target_modules=["query_key_value"], init_lora_weights=False)
    model, rows = AdaptedModel(get_peft_model(FalconForCausalLM(config), lora)), sequences(3)
    expected = gradients_of(model, rows)
    monkeypatch.setitem(gradients.KEPT_TOKENS, "cpu", 1)
    torch.testing.assert_close(gradients_of(model, rows), expected)


def test_layers_are_computed_twice_where_a_batch_is_long(monkeypatch):
    model, rows = AdaptedModel(tiny_adapted()), sequences(3)
    calls = []
    model.inner.model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    gradients_of(model, rows)
    monkeypatch.setitem(gradients.KEPT_TOKENS, "cpu", 1)
    gradients_of(model, rows)
    assert len(calls) == 3


def test_a_layer_that_is_used_twice_is_refused():
    model = tiny_adapted()
    layers = model.get_base_model().model.layers
    layers[2].self_attn.q_proj = layers[1].self_attn.q_proj
    with pytest.raises(ModelError, match="used by more than one layer"):
        gradients_of(AdaptedModel(model), sequences(3))


def test_a_layer_that_no_row_passes_is_refused():
    model = tiny_adapted()
    layers = model.get_base_model().model.layers
    layers[1].self_attn.forward = lambda hidden_states, **_: (hidden_states, None)
    with pytest.raises(ModelError, match="has no part in the loss"):
        gradients_of(AdaptedModel(model), sequences(3))


def test_tokens_without_their_rows_are_refused():
    model = tiny_adapted()
    mlp = model.get_base_model().model.layers[1].mlp
    inner = mlp.forward
    mlp.forward = lambda states: inner(states.flatten(0, 1)).view_as(states)
    with pytest.raises(ModelError, match="tokens without their rows"):
        gradients_of(AdaptedModel(model), sequences(3))


def test_a_model_whose_tokens_see_those_behind_them_is_refused():
    model = tiny_adapted()
    for layer in model.get_base_model().model.layers:
        layer.self_attn.is_causal = False
    with pytest.raises(ModelError, match="tokens see those behind them"):
        AdaptedModel(model)


def test_a_sliding_window_and_padding_go_together():
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=4,
    )
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    model, rows = AdaptedModel(get_peft_model(MistralForCausalLM(config), lora)), sequences(4)
    assert max(map(gradients.counted_length, rows)) > model.packed_limit == 4
    found = {}
    visit_gradients(model, rows, mean_loss_weights(rows), lambda name, some: found.update({name: some}))
    for index, row in enumerate(rows):
        alone = gradients_of(model, [row])
        torch.testing.assert_close(flat({name: some[index] for name, some in found.items()}), alone)


def test_an_adapter_that_is_no_lora_is_refused():
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
    )
    ia3 = IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"])
    with pytest.raises(ModelError, match="IA3"):
        AdaptedModel(get_peft_model(LlamaForCausalLM(config), ia3))


def test_rows_go_alone_where_a_longer_one_would_change_them():
    model = AdaptedModel(tiny_adapted())
    assert gradients.batch_tokens(model) == gradients.BATCH_TOKENS["cpu"]
    model.inner.config.rope_parameters["rope_type"] = "dynamic"
    rows = sequences(4)
    assert [len(batch) for batch in gradients.batches(model, rows)] == [1] * 4


def test_what_a_gpu_would_not_survive_is_refused_before_it_is_run():
    model = AdaptedModel(tiny_adapted())
    for ids, message in (
        ([1, VOCABULARY], "token ids must lie in 0 to 96"),
        ([1] * 129, "129 tokens, but the model"),
    ):
        row = TokenSequence(np.array(ids, np.int32), np.arange(len(ids)) > 0)
        with pytest.raises(ValueError, match=f"sequence 0: {message}"):
            list(gradients.batches(model, [row]))
