# Starts one server so that it never outlives the process that asked for it.
#
#   sh -c "$(cat watch.sh)" watch REMOVE PROGRAM [ARGUMENT...]      (standard input: a pipe from the parent)
#
# The shell becomes the server, so the parent's child is the server itself. Beside it stands a watcher that
# reads the pipe: a line releases it; the end of the pipe means that the parent is gone, whatever killed it, and
# the watcher then stops the server and removes the folder REMOVE (nothing where REMOVE is empty).
# The watcher is forked twice: a server must not find a child that it did not start.
server=$$
remove=$1
shift
exec 3<&0 </dev/null
runs() {
    # an orphan that nobody waits for stays as a zombie: it has ended all the same
    kill -0 "$server" 2>/dev/null && ! grep -q '^State:.*Z' "/proc/$server/status" 2>/dev/null
}
( (
    if read -r _ <&3; then exit 0; fi
    if kill -INT "$server" 2>/dev/null; then
        tries=0
        while [ "$tries" -lt 100 ] && runs; do
            sleep 0.1
            tries=$((tries + 1))
        done
        kill -KILL "$server" 2>/dev/null
    fi
    if [ -n "$remove" ]; then
        cd / && rm -rf -- "$remove"
        rmdir -- "$(dirname -- "$remove")" 2>/dev/null
    fi
) & )
exec 3<&-
exec "$@"
