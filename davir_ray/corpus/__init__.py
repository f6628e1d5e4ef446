"""Files -> examples: which files, which rows, which shape, and what is wrong with a row."""
