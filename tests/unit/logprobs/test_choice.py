

def test_a_cluster_that_starts_its_gpus_on_demand_is_believed():
    config = EngineConfig(type="vllm", device="cuda", tensor_parallel_size=4)
    choice = choose_engine(config, gpus=0, model_type="llama", machine=Machine("cuda", frozenset()))
    assert (choice.type, choice.device, choice.dtype) == ("vllm", "cuda", "bfloat16")
