"""The command `fkdrift`."""
