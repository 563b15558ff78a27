"""Records on disk, the frame of all records, and the rows of a table."""
