"""What a run keeps on the disk: its folder, whole files, and YAML."""
