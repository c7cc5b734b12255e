# ministack, an emulator of AWS services in Python (MIT), in memory: one version for all scripts that start it, each with the one service
# that it is about. Sourced after server.bash, never run. Installed from PyPI, once, into a virtual environment in a cache directory.

readonly MINISTACK=1.5.33

install_ministack() {
    python3 -m venv "$1/venv" && "$1/venv/bin/pip" install --quiet --disable-pip-version-check "ministack==$MINISTACK"
}

# serve_ministack SERVICE
serve_ministack() {
    local directory
    command -v python3 >/dev/null || skip "python3 is missing"
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || skip "python3 is older than 3.10: $(python3 --version)"
    directory=$(in_cache "ministack-$MINISTACK" install_ministack) ||
        skip "pip could not install ministack $MINISTACK (see above): is PyPI reachable, and python3-venv installed?"
    # By default it would listen on all interfaces and serve everything from S3 to Lambda.
    export BIND_HOST=127.0.0.1 GATEWAY_PORT=$port SERVICES=$1 LOG_LEVEL=WARNING
    serve "$directory/venv/bin/ministack"
}
