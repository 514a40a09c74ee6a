#!/bin/sh
# The toy loop: what people write before they install anything. Usage: toy-loop.sh CLONE KUBECTL KUBECONFIG SECONDS
cd "$1" || exit 1
while true; do
    git pull --quiet
    "$2" --kubeconfig "$3" apply --recursive --filename . >/dev/null
    sleep "$4"
done
