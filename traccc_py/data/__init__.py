"""Event files in and out, and the checks that cells pass before they are reconstructed."""

FIRST_DATA_LINE = 2  #: line number of row 0 of an event file, below the header
