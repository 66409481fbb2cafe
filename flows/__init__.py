"""Composition alone: flows that read as the DAG, and the command line that runs them."""
