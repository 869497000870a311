"""Training steps of real sizes without a GPU: kernels, bytes, waits and memory are counted; see `__main__.py`."""
