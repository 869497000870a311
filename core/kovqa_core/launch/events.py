"""What the first worker tells whoever started it: JSON lines on stdout."""

WATCHED = "KOVQA_EVENTS"  # set by `kovqa train`: events go to stdout as JSON lines
