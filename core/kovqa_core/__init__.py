"""kovqa's engine: it knows nothing of the command line."""

# Here and not in the package's metadata, which a source tree does not have.
__version__ = "0.1.0"
