#!/bin/bash
# Before Envoy stops: asks clients to reconnect elsewhere (GOAWAY), then waits for open streams.
# Takes the most seconds to wait, and those until all Services know that it stops (5).
settle=${2:-5}

admin() { # METHOD PATH
  exec 3<>/dev/tcp/127.0.0.1/9901
  printf '%s %s HTTP/1.1\r\nHost: admin\r\nContent-Length: 0\r\nConnection: close\r\n\r\n' "$1" "$2" >&3
  cat <&3
  exec 3>&-
}

admin POST '/drain_listeners?graceful&skip_exit' >/dev/null
sleep "$settle" # until no Service sends new connections here
for ((left = $1 - settle; left > 0; left--)); do
  admin GET '/stats?filter=^http.browsers.downstream_rq_active$' | grep -q 'active: 0' && exit
  sleep 1
done
