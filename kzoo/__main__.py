"""`python -m kzoo`: the command line, where the `kzoo` script is not on the path."""

from kzoo.cli import entry

if __name__ == "__main__":
    entry()
