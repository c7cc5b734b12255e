# What the scripts share that kill the demo on a broker's server. Sourced, with their arguments: TOLLGATE INPUT KILLS [SEED].
#
# Sets: tollgate, input, kills, seed, scratch (gone at the end), port (of the server). Reads: here.

tollgate=$1 input=$2 kills=$3 seed=${4:-$RANDOM}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
port=$((20000 + RANDOM % 10000))

# try_server SCRIPT OPTIONS...: whether it can be started here. To install it may take minutes, which nobody has once the demo waits for it.
try_server() {
    "$@" --port "$port" --background "$scratch/pid" >/dev/null
    kill "$(cat "$scratch/pid")"
    while kill -0 "$(cat "$scratch/pid")" 2>/dev/null; do sleep 0.05; done
}

# kill_broker BROKER URL SERVER OPTIONS...: runs the demo with three consumers in processes of their own, on the embedded store, and compares
# its totals with those of a program that shares no code with it.
kill_broker() {
    local broker=$1 url=$2 server=$3
    shift 3
    "$here/totals.py" "$input" >"$scratch/expected"
    echo "seed $seed"
    "$tollgate" --input "$input" --data "$scratch/data" --seed "$seed" --broker "$broker" --broker-url "$url" \
        --processes 3 --kills "$kills" --server "$server" --server-ready "127.0.0.1:$port" \
        --duplicates 0.3 --reorder 100 --lose-acks 0.1 --totals "$scratch/totals" --report "$scratch/report" "$@"
    cmp "$scratch/expected" "$scratch/totals"
    echo "the totals are those of an independent program"
}
