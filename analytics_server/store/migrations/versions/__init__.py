"""One file per migration. Columns said to be immutable in their comments are so for ever."""
