"""What the quickstart makes before the main job runs: a model, a corpus, a reference model."""
