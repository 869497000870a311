"""The table of data sets: name -> module.

A module offers `pictures(root)`, where the pictures lie when nothing else is said, and
`pieces(root, images, options)`, the parts its rows are read from (`data.pieces.Piece`); it may
state `MIN_COUNT`, how often an answer must be seen to become a class, `OPTIONS`, the options of
`data.pieces.Options` it listens to, and `DIVIDED`, how it makes splits its publisher does not have.
"""

SOURCE_MODULES = {
    name: f"kovqa_core.index.sources.{name}"
    for name in ("aihub", "aihub101", "nia", "dacon", "vqav2", "coco", "kvqa", "table")
}
