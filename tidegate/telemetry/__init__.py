"""What gateway and worker tell their operators: names, metrics, the admin port, logs."""
