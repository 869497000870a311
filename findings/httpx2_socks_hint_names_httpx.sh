#!/usr/bin/env bash
# httpx2 2.16.2, asked to use a SOCKS proxy without its optional package, raises an ImportError that tells to install
# "httpx[socks]": the extra of the package it replaces, which leaves httpx2 as it was.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$folder" httpx2==2.16.2 2>/dev/null
said=$(PYTHONPATH=$folder python3 - <<'P' 2>&1 | tail -1
import httpx2
try:
    httpx2.Client(proxy="socks5://127.0.0.1:1080")
except ImportError as error:
    print(httpx2.__version__, "says:", error)
P
)
echo "$said"
grep -q "httpx\[socks\]" <<< "$said" || { echo "the behaviour has changed"; exit 1; }
