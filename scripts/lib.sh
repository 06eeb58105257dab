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

# usage "$@" answers --help with the comment at the top of the script.
usage() {
    case "${1-}" in -h | --help) ;; *) return 0 ;; esac
    sed -n '2,/^[^#]/ s/^# \{0,1\}//p' "$0"
    exit 0
}

require_root() {
    [ "$(id -u)" -eq 0 ] || die "this needs root: it $1" "sudo $0${2:+ $2}"
}

# step TITLE COMMAND… runs the command quietly: one line with the elapsed time, a sign of life every
# 15 seconds (every second on a terminal), and on failure the end of what the command printed.
step() {
    local title=$1 log started=$SECONDS status=0 ticker
    shift
    log=$(mktemp "${TMPDIR:-/tmp}/opfs-step.XXXXXX")
    [ -t 1 ] || say "$title …"
    tick "$title" &
    ticker=$!
    "$@" >"$log" 2>&1 </dev/null || status=$?
    kill "$ticker" 2>/dev/null || true
    wait "$ticker" 2>/dev/null || true
    [ ! -t 1 ] || printf '\r\033[K'
    if [ "$status" -ne 0 ]; then
        say "$title: FAILED after $((SECONDS - started)) s. The end of its output (all of it is in $log):" >&2
        tail -n 40 "$log" >&2
        return "$status"
    fi
    rm -f "$log"
    say "$title: done, $((SECONDS - started)) s"
}

# Ends with the script even if that is killed. The sleeper holds none of the script's files open, so that
# whoever reads our output is not kept waiting for it.
tick() {
    local started=$SECONDS every=15
    [ ! -t 1 ] || every=1
    while sleep "$every" >/dev/null 2>&1 9>&- && kill -0 $$ 2>/dev/null; do
        if [ -t 1 ]; then
            printf '\r\033[K%s … %d s' "$1" $((SECONDS - started))
        else
            say "  still at it: $1, $((SECONDS - started)) s"
        fi
    done
}
