"""C-scores: how often models that never saw an example predict its given label."""
