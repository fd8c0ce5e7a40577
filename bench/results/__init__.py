"""The rows of results, the conditions under which they were measured, and the files of rows."""
