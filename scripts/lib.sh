# shellcheck shell=bash
# What the scripts share: where the repository is, how a step reports. Sourced, never run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck disable=SC2034  # the sourcing scripts use it
venv=$root/.venv

say() { printf '%s\n' "$*"; }

die() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    shift
    local hint
    for hint in "$@"; do printf '    %s\n' "$hint" >&2; done
    exit 1
}

require_root() {
    [ "$(id -u)" -eq 0 ] || die "this needs root: it $1" "sudo $0${2:+ $2}"
}

# step TITLE COMMAND… runs the command quietly: one line with the elapsed time, a sign of life every
# 15 seconds (every second on a terminal), and on failure the end of what the command printed.
step() {
    local title=$1 log started pid status=0 tick=15
    shift
    log=$(mktemp "${TMPDIR:-/tmp}/opfs-step.XXXXXX")
    started=$SECONDS
    [ -t 1 ] && tick=1 || printf '%s …\n' "$title"
    "$@" >"$log" 2>&1 </dev/null &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        # The sleeper is the clock; whichever ends first wakes us.
        sleep "$tick" &
        wait -n "$pid" $! 2>/dev/null || true
        kill $! 2>/dev/null || true
        kill -0 "$pid" 2>/dev/null || break
        if [ -t 1 ]; then
            printf '\r\033[K%s … %d s' "$title" $((SECONDS - started))
        else
            printf '  still at it: %s, %d s\n' "$title" $((SECONDS - started))
        fi
    done
    wait "$pid" || status=$?
    [ ! -t 1 ] || printf '\r\033[K'
    if [ "$status" -ne 0 ]; then
        say "$title: FAILED after $((SECONDS - started)) s. The end of its output (all of it in $log):" >&2
        tail -n 40 "$log" >&2
        return "$status"
    fi
    rm -f "$log"
    say "$title: done, $((SECONDS - started)) s"
}
