"""The table of data sets: name -> module.

A module offers `pictures(root)`, where the pictures lie when nothing else is said, and
`pieces(root, images, options)`, the parts its rows are read from (`data.pieces.Piece`); it may
state `MIN_COUNT`, how often an answer must be seen to become a class.
"""

SOURCES = {
    "aihub": "kovqa_core.data.sources.aihub",
    "aihub101": "kovqa_core.data.sources.aihub101",
}
