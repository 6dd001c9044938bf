"""Reading and writing detectors as detray JSON files."""
