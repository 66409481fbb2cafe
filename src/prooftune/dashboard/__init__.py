"""The dashboard: one page of everything that an object store knows, written from the store alone.

``reading`` turns the store into a frozen view, ``trends`` draws a task's history, ``page`` writes the page.
"""
