"""What happens when Redis has lost data, or could not be asked. See README.md."""
