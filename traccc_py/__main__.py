"""``python -m traccc_py`` is ``traccc-py``."""

from traccc_py.cli import main

if __name__ == "__main__":
    main()
