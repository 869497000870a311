#!/usr/bin/env bash
# huggingface_hub 2.4.0: one call of model_info against an endpoint of one's own (a mirror, an offline proxy) makes a second,
# unasked request, GET /api/agent-harnesses, to build the User-Agent. HF_HUB_DISABLE_TELEMETRY=1 before the import stops it.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$folder/site" huggingface_hub==2.4.0 2>/dev/null
cat > "$folder/ask.py" <<'P'
import http.server, json, os, sys, tempfile, threading

class Mirror(http.server.BaseHTTPRequestHandler):
    paths = []
    def do_GET(self):
        self.paths.append(self.path.partition("?")[0])
        model = {"id": "owner/name", "sha": "0" * 40, "siblings": [], "tags": [], "private": False, "downloads": 0, "likes": 0}
        body = json.dumps(model).encode()
        self.send_response(200 if self.path.startswith("/api/models/") else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ |= {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": tempfile.mkdtemp()}
if len(sys.argv) > 1:
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
import huggingface_hub
huggingface_hub.HfApi().model_info("owner/name")
print(huggingface_hub.__version__, *sorted(Mirror.paths))
P
plain=$(cd "$folder" && env -u HF_HUB_DISABLE_TELEMETRY PYTHONPATH=$folder/site python3 ask.py)
quiet=$(cd "$folder" && PYTHONPATH=$folder/site python3 ask.py quiet)
echo "as it is:                    $plain"
echo "HF_HUB_DISABLE_TELEMETRY=1:  $quiet"
grep -q "/api/agent-harnesses" <<< "$plain" && ! grep -q "/api/agent-harnesses" <<< "$quiet" || { echo "the behaviour has changed"; exit 1; }
