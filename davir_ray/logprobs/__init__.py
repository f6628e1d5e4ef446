"""Token ids -> log-probabilities of the scored tokens."""
