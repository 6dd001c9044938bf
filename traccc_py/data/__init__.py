"""Reading and writing event files."""

FIRST_DATA_LINE = 2  #: line number of row 0 of an event file, below the header
