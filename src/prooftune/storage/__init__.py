"""Everything that must last: an object store (a local folder or S3), the manifests of runs and the registry of champions."""
