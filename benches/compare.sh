#!/usr/bin/env bash
# One redynamo node beside redis-server (AOF, everysec): the same load on both in turn, several rounds, and the ratios of
# throughput, latency percentiles and server CPU per operation.
#
#   benches/compare.sh [--rounds 3] [--requests 300000] [--keys 1000000] [--tests "set get incr mset"] [--pipelines "1 16"]
#
# Needs redis-server and redis-benchmark (Debian: redis-server, redis-tools). Builds the release binary first. Machines
# are noisy: read the medians, and the ratios before the absolute figures.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=3 requests=300000 keys=1000000 clients=50 bytes=100 tests="set get incr mset" pipelines="1 16"
while [ $# -gt 0 ]; do
    case "$1" in
        --rounds) rounds=$2 ;; --requests) requests=$2 ;; --keys) keys=$2 ;; --tests) tests=$2 ;; --pipelines) pipelines=$2 ;;
        *) echo "unknown option $1" >&2; exit 2 ;;
    esac
    shift 2
done
for tool in redis-server redis-benchmark redis-cli; do
    command -v "$tool" >/dev/null || { echo "$tool is needed (Debian: redis-server redis-tools)" >&2; exit 2; }
done
cargo build --release --quiet

work=$(mktemp -d)
pids=()
cleanup() { kill "${pids[@]}" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"; }
trap cleanup EXIT

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
await() { for _ in $(seq 200); do redis-cli -p "$1" ping 2>/dev/null | grep -q PONG && return; sleep 0.05; done; echo "no answer on $1" >&2; exit 1; }

redis_port=$(free_port)
mkdir "$work/redis" "$work/ours"
redis-server --port "$redis_port" --bind 127.0.0.1 --dir "$work/redis" --save "" --appendonly yes --appendfsync everysec >/dev/null &
redis_pid=$!; pids+=("$redis_pid")
ours_port=$(free_port)
target/release/redynamo --port "$ours_port" --bind 127.0.0.1 --peer-port "$(free_port)" --admin-port off \
    --dir "$work/ours" --appendfsync everysec --loglevel warning >/dev/null &
ours_pid=$!; pids+=("$ours_pid")
await "$redis_port"; await "$ours_port"

ticks() { awk '{print $14 + $15}' "/proc/$1/stat"; }
hz=$(getconf CLK_TCK)

# One run: prints "throughput p50 p99 p99.9 cpu-us-per-operation".
run() { # name pid port test pipeline count
    local before after
    before=$(ticks "$2")
    redis-benchmark -h 127.0.0.1 -p "$3" -t "$4" -P "$5" -n "$6" -c "$clients" -r "$keys" -d "$bytes" >"$work/out" 2>/dev/null
    after=$(ticks "$2")
    awk -v cpu=$((after - before)) -v hz="$hz" -v count="$6" '
        /throughput summary/ { rate = $3 }
        /% <= / { p = $1 + 0; ms = $3 + 0
                  if (p >= 50 && !p50) p50 = ms; if (p >= 99 && !p99) p99 = ms; if (p >= 99.9 && !p999) p999 = ms }
        END { printf "%.0f %.3f %.3f %.3f %.2f\n", rate, p50, p99, p999, cpu * 1000000 / hz / count }' "$work/out"
}

median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

printf '%-6s %-4s %-9s %12s %9s %9s %9s %11s\n' test pipe server "requests/s" "p50 ms" "p99 ms" "p99.9 ms" "CPU µs/op"
for pipeline in $pipelines; do
    for test in $tests; do
        count=$requests
        [ "$test" = mset ] && count=$((requests / 5))
        : >"$work/redis.txt"; : >"$work/ours.txt"
        for _ in $(seq "$rounds"); do
            run redis "$redis_pid" "$redis_port" "$test" "$pipeline" "$count" >>"$work/redis.txt"
            run ours "$ours_pid" "$ours_port" "$test" "$pipeline" "$count" >>"$work/ours.txt"
        done
        ratios=()
        for column in 1 2 3 4 5; do
            r=$(awk -v c=$column '{ print $c }' "$work/redis.txt" | median)
            o=$(awk -v c=$column '{ print $c }' "$work/ours.txt" | median)
            eval "redis_$column=$r ours_$column=$o"
            ratios+=("$(awk -v o="$o" -v r="$r" 'BEGIN { if (r > 0) printf "%.2f", o / r; else printf "-" }')")
        done
        printf '%-6s %-4s %-9s %12s %9s %9s %9s %11s\n' "$test" "$pipeline" redis "$redis_1" "$redis_2" "$redis_3" "$redis_4" "$redis_5"
        printf '%-6s %-4s %-9s %12s %9s %9s %9s %11s\n' "" "" redynamo "$ours_1" "$ours_2" "$ours_3" "$ours_4" "$ours_5"
        printf '%-6s %-4s %-9s %12s %9s %9s %9s %11s\n' "" "" ratio "${ratios[@]}"
    done
done
