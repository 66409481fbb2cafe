"""Models behind APIs: one file per provider, and the only places that import the providers' SDKs."""
