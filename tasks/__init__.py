"""One file a stage: a Prefect task that holds policy, makes one library call and shows one artifact."""
