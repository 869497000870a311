"""What only a GPU can show, checks 1 to 19 of docs/gpu/README.md: `make gpu`.

Every check is one body that takes a device. Marked `gpu` it runs on CUDA with real sizes; without the mark the same
body runs on a CPU with tiny ones, so that it does not rot where no GPU is.
"""
