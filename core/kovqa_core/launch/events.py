"""What the first worker tells whoever started it: JSON lines on stdout."""

EVENTS_VARIABLE = "KOVQA_EVENTS"  # set by `kovqa train`: events go to stdout as JSON lines
