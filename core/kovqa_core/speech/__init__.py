"""Speech: a spoken question becomes text, an answer becomes sound."""
