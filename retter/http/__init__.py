"""What bytes mean: heads, bodies and fields of HTTP/1.1, read and written without I/O."""
