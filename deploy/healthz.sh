#!/usr/bin/env bash
# Asks a service of this container for its health: drawdown-healthz PORT, the port of /metrics and /healthz.
# The image has neither curl nor wget; bash opens the connection itself.
set -euo pipefail
exec 3<>"/dev/tcp/127.0.0.1/$1"
printf 'GET /healthz HTTP/1.0\r\n\r\n' >&3
IFS=' ' read -r _ status _ <&3
[ "$status" = 200 ]
