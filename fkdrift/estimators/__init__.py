"""What is measured on a trained process, each quantity with its error."""
