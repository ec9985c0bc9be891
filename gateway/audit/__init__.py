"""What sessions did: lines for an audit, events for others, figures for Prometheus."""
