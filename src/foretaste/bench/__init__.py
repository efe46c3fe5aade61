"""The matrix: data sets x attacks x rates x imperfections x networks x defences x seeds, and the tables made of it."""
