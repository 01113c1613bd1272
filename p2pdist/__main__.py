"""Run the program with ``python -m p2pdist``."""

from p2pdist.cli.main import main

if __name__ == "__main__":
    main()
