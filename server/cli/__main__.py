"""``python -m server.cli``: the ``lethe`` command where it is not on the path."""

from server.cli.main import main

if __name__ == "__main__":
    main()
