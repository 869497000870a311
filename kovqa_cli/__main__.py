"""python -m kovqa_cli"""

from kovqa_cli.main import run

run()
