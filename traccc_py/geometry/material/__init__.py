"""Material slabs, and maps of them over a surface."""
