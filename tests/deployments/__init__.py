"""What stands between clients and uWSGI's workers: each front for real, as the docs set it up."""
