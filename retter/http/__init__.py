"""HTTP/1.1 heads, bodies and fields, read and written without I/O."""
