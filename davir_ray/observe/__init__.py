"""What a run tells: progress while it works, the closing table, how far runs and trainings are."""
