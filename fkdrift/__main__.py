"""`python -m fkdrift` is the command `fkdrift`."""

from fkdrift.cli.main import main

if __name__ == "__main__":
    main()
