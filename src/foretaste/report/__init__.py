"""What a run leaves behind: result files and the self-contained HTML page."""
