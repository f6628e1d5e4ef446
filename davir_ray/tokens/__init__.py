"""Examples -> token ids with the counted positions marked."""
