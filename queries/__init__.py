"""What can be asked, and exactly what it discloses. Pure: no I/O, no wire, no engine, no clock."""
