"""`kovqa export`: a model -> a folder that other libraries read, checked and published."""
