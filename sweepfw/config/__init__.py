"""Files of the user, read and checked: each error names the file, the key and the line."""
