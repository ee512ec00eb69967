"""Routes in; out comes the State of HAProxy (program, tables, servers), and the Plan between two states."""
