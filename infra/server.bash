# What the start scripts share: their arguments, the cache that servers are installed into, and starting a server,
# waiting until it answers and saying so. Sourced, never run. What is installed and how it is called is in the scripts.
#
# Sets: port, data, log, pid_file, lifetime (detached | own | stdin). Reads: name, takes_data (yes | no), default_port, and
# scheme (default: http). A script defines `answers`: whether its server at $port does what it is there for.

readonly SKIPPED=77          # automake's exit code for a test that can't run here
readonly START_SECONDS_MAX=60
readonly ANSWER_SECONDS_MAX=5
readonly PORT_SECONDS_MAX=5

usage() {
    cat >&2 <<USAGE
usage: $0 [--port N] [--data FILE] [--log FILE] [--background PID_FILE | --until-stdin-closes]

Starts $name on 127.0.0.1 and prints "endpoint: URL" as soon as it answers.

  --port N              where it listens (default: $default_port)
  --data PLACE          where it keeps its data (default: memory, or a place that ends with it; not all servers can)
  --log FILE            where its output goes (default: stderr, or PID_FILE.log)
  --background FILE     leave it running and write its process id to FILE; end it with: kill "\$(cat FILE)"
  --until-stdin-closes  kill it when stdin reaches its end: for tests, so that it never outlives them

Exit code $SKIPPED: it can't be started on this machine, for the reason given.
What has to be installed goes to \$TOLLGATE_CACHE (default: ~/.cache/tollgate).
USAGE
}

fail() {
    echo "$0: $*" >&2
    exit 1
}

# skip REASON: loudly, because a test that was skipped has not passed.
skip() {
    echo "!!! SKIPPED: $name was NOT started: $*" >&2
    exit "$SKIPPED"
}

parse_arguments() {
    port=$default_port data= log= pid_file= lifetime=own
    while [ $# -gt 0 ]; do
        case $1 in
            --port | --data | --log | --background) [ $# -ge 2 ] || fail "$1 wants a value; see --help" ;;
        esac
        case $1 in
            --port) port=$2 && shift 2 ;;
            --data) data=$2 && shift 2 ;;
            --log) log=$2 && shift 2 ;;
            --background) pid_file=$2 lifetime=detached && shift 2 ;;
            --until-stdin-closes) lifetime=stdin && shift ;;
            --help | -h) usage && exit 0 ;;
            *) usage && fail "unknown argument: $1" ;;
        esac
    done
    [[ $port =~ ^[0-9]+$ ]] || fail "--port wants a number, not '$port'"
    [ -z "$data" ] || [ "$takes_data" = yes ] || fail "$name keeps its data in memory: leave out --data"
    await_free_port
}

# in_cache NAME INSTALL: prints the directory NAME of the cache. If it is missing, `INSTALL DIRECTORY` makes it first; one at
# a time, and never half.
in_cache() {
    local cache=${TOLLGATE_CACHE:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/tollgate} directory
    directory=$cache/$1
    mkdir -p "$cache"
    (
        if command -v flock >/dev/null; then flock 9; fi
        if [ ! -e "$directory/complete" ]; then
            echo "$0: installing into $directory; this takes up to some minutes and happens once" >&2
            rm -rf "$directory" && mkdir "$directory"
            "$2" "$directory" >&2 9>&- || exit 1
            touch "$directory/complete"
        fi
    ) 9>"$directory.lock" || return 1
    echo "$directory"
}

# A server that was killed just now may hold its port for a moment still.
await_free_port() {
    local until=$((SECONDS + PORT_SECONDS_MAX))
    while listens; do
        [ "$SECONDS" -lt "$until" ] || fail "something listens on 127.0.0.1:$port already; end it, or choose another --port"
        sleep 0.1
    done
}

listens() {
    (exec 4<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null
}

# answers_amazon SERVICE TARGET: whether a service of AWS, or what passes for it, carries out an operation without arguments. The
# signature is nobody's: emulators look at its form only.
answers_amazon() {
    (
        exec 4<>"/dev/tcp/127.0.0.1/$port"
        printf '%s\r\n' 'POST / HTTP/1.1' "Host: 127.0.0.1:$port" 'Connection: close' \
            'Content-Type: application/x-amz-json-1.0' "X-Amz-Target: $2" \
            'X-Amz-Date: 20260101T000000Z' 'Content-Length: 2' \
            "Authorization: AWS4-HMAC-SHA256 Credential=emulator/20260101/us-east-1/$1/aws4_request, SignedHeaders=host;x-amz-date, Signature=0000000000000000000000000000000000000000000000000000000000000000" \
            '' >&4
        printf '{}' >&4
        read -r -t "$ANSWER_SECONDS_MAX" _ status _ <&4
        [ "$status" = 200 ]
    ) 2>/dev/null
}

# A process that has ended and was not waited for yet still has an id, so `kill -0` would not do.
lives() {
    local state
    state=$(ps -o stat= -p "$1") && [[ $state != Z* ]]
}

# await_answer PROCESS: until it answers (0), has ended or took too long (1).
await_answer() {
    local until=$((SECONDS + START_SECONDS_MAX))
    until answers; do
        lives "$1" || { echo "$0: $name ended before it answered; its output is in ${log:-stderr}" >&2 && return 1; }
        [ "$SECONDS" -lt "$until" ] ||
            { echo "$0: $name did not answer within $START_SECONDS_MAX s; its output is in ${log:-stderr}" >&2 && return 1; }
        sleep 0.1
    done
}

# serve COMMAND...: starts the server. In the foreground this process becomes the server, so that to kill the one is to kill
# the other.
serve() {
    local url=${scheme:-http}://127.0.0.1:$port server
    if [ "$lifetime" = detached ]; then
        log=${log:-$pid_file.log}
        "$@" </dev/null >>"$log" 2>&1 &
        server=$!
        echo "$server" >"$pid_file"
        if ! await_answer "$server"; then
            kill -9 "$server" 2>/dev/null || true
            rm -f "$pid_file"
            exit 1
        fi
        disown "$server"
        echo "endpoint: $url"
        return
    fi
    server=$$
    exec 3<&0
    (
        # What becomes of this shell is nobody's business; a signal for the server's group must not end the watch early.
        trap '' INT TERM
        if await_answer "$server"; then
            echo "endpoint: $url"
        else
            kill -9 "$server" 2>/dev/null || true
        fi
        exec >&-
        if [ "$lifetime" = stdin ]; then
            cat <&3 >/dev/null
            ! lives "$server" || kill -9 "$server"
        fi
    ) &
    if [ -n "$log" ]; then
        exec "$@" </dev/null 3<&- >>"$log" 2>&1
    fi
    exec "$@" </dev/null 3<&- >&2
}
