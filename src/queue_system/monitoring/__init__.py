"""What an operator watches: health, probes over HTTP, Prometheus metrics."""
