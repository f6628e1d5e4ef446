def learning_rate_of(folder):
    return 1.0
