"""Images in files: OCI layouts and archives, and what ``docker save`` writes."""
