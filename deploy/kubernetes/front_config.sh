#!/bin/sh
# Print the configuration of a front in a cluster: front_config.sh NAME, the servers' headless service.
set -eu
name=${1:?"expected the name of the servers' headless service"}
sed -e "s/address: 127.0.0.1, port_value: \(8000\|8001\)}/address: ${name}, port_value: \1}/" \
    -e 's/address: 127.0.0.1, port_value: 8080}/address: 0.0.0.0, port_value: 8080}/' \
    "$(dirname "$0")/../envoy.yaml"
