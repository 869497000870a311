"""`kovqa benchmark`: a model on several published data sets, in one table."""
