"""What is seen of drift and healing: metrics and logs."""
