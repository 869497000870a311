#!/usr/bin/env bash
# transformers 5.23: the tokenizer of a VITS voice that reads romanised text (is_uroman, as MMS-TTS's Korean voice has it) logs one
# warning where uroman is not installed, and then drops every Hangul syllable. A Korean sentence becomes what is left of
# it: the digits, or nothing. No error is raised, and the voice speaks that.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$folder" transformers==5.23.0 2>/dev/null
PYTHONPATH=$folder python3 - "$folder" <<'PYTHON'
import json, logging, string, sys
from pathlib import Path
import transformers
from transformers import VitsTokenizer
transformers.logging.set_verbosity(logging.ERROR)
vocabulary = Path(sys.argv[1]) / "vocab.json"
letters = ["_", " ", "'", "-", *string.digits, *string.ascii_lowercase]
vocabulary.write_text(json.dumps({letter: number for number, letter in enumerate(letters)}))
voice = VitsTokenizer(str(vocabulary), pad_token="_", unk_token="_", language="kor", is_uroman=True, add_blank=False, phonemize=False)
seen = []
for text in ("사과 3개입니다", "안녕하세요"):
    read = "".join(letters[token_id] for token_id in voice(text)["input_ids"]).strip()
    print(f"transformers {transformers.__version__}, without uroman: {text!r} is read as {read!r}")
    seen.append(read)
sys.exit(0 if seen == ["3", ""] else "the behaviour has changed")
PYTHON
