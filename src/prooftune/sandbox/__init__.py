"""Local stand-ins for the managed APIs: stateful, with faults on request, so that a run can be rehearsed without a key or a bill.

One file per provider holds its paths, fields, statuses, errors and limits. What they share: ``http.py`` (a server on a real socket),
``faults.py``, ``work.py`` (jobs that move through their states), ``models.py`` (who answers, and who trains).
"""
