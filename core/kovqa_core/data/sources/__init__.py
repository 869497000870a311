"""The table of data sets: name -> module with `read(root, images, left_out)` and `pictures(root)`."""

SOURCES = {"aihub": "kovqa_core.data.sources.aihub"}
