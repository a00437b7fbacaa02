"""What an operator watches: health, probes over HTTP, Prometheus metrics. Never runs or moves an operation."""
