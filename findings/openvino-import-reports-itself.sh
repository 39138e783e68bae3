#!/usr/bin/env bash
# openvino 2026.4.1 (openvino-telemetry 2025.2.0), Linux, Python 3.11.
#
# Expected: importing a library for inference makes no request and writes nothing into the home folder.
# Seen: `import openvino` alone makes a file with a client id in ~/intel and connects to www.google-analytics.com, without asking,
# unless the variable CI is set or an opt-out file exists. The package that sends is optional at run time: where it cannot be
# imported, OpenVINO takes a stub, makes no file and no connection.
#
# The connection ends here at a proxy of this script, so that nothing is sent.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --quiet --disable-pip-version-check install openvino==2026.4.1 openvino-telemetry==2025.2.0
cat > "$folder/look.py" <<'PYTHON'
import os, socket, subprocess, sys

home = sys.argv[1]
os.makedirs(home)
with socket.create_server(("127.0.0.1", 0)) as proxy:
    proxy.settimeout(10)
    address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    environment |= {"HOME": home, "HTTPS_PROXY": address, "https_proxy": address}
    subprocess.run([sys.executable, "-c", sys.argv[2]], env=environment, check=True, stderr=subprocess.DEVNULL)
    try:
        connection, _ = proxy.accept()
        asked = connection.recv(1000).split(b"\r\n")[0].decode()
    except TimeoutError:
        asked = "no connection"
print(asked, "; files at home:", sorted(os.listdir(os.path.join(home, "intel"))) if os.listdir(home) else [])
PYTHON
look() { "$folder/venv/bin/python" "$folder/look.py" "$folder/$1" "$2"; }
plain=$(look plain "import openvino")
blocked=$(look blocked "import sys; sys.modules['openvino_telemetry'] = None; import openvino")
echo "import openvino:           $plain"
echo "without the other package: $blocked"
[[ $plain == "CONNECT www.google-analytics.com:443"*"openvino_ga_cid"* ]]
[[ $blocked == "no connection ; files at home: []" ]]
