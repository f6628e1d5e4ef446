"""What has been measured: names, parts, and what is missing."""
