"""How good predictions are."""

# Here, and not beside what computes it, because whoever only shows a score goes without numpy.
MAIN_CAPTION_METRIC = "CIDEr"  # CIDEr-D, as the original chooses its captioners by
