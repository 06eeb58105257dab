"""`python -m opfs`: the command line, for where the `opfs` script is not on the path."""

from opfs.cli import main

if __name__ == "__main__":
    main(prog_name="opfs")
