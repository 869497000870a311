"""python -m kovqa_cli"""

from kovqa_cli.entry import run

run()
