"""``python -m gwctl``: the same as the command."""

from gwctl.cli import main

if __name__ == "__main__":
    main()
