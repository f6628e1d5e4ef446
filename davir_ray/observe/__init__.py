"""What a run tells while it works: events, progress, the closing table."""
