"""A person says whether a run that the gate would promote is put in use; the clock says no."""

from __future__ import annotations

import yaml
from prefect import flow

from prooftune.results import Promotion
from prooftune.spec import Store
from prooftune.storage.manifest import find_run
from prooftune.storage.objects import open_store
from prooftune.storage.registry_approval import waits_for_approval
from tasks.promotion import ask_for_promotion, settle_promotion
from tasks.upload import mirrored


@flow(name="promotion", flow_run_name="{run_id}: put it in use?", validate_parameters=True)
def promotion(store: Store, run_id: str, within_hours: float = 24.0) -> Promotion:
    """Ask a person for the promotion of a published run that is held back for it; one that is not held back is left as it is.

    Raises:
        NoSuchObject: no such run is published.
    """
    objects = open_store(store)
    manifest = find_run(objects, run_id)
    name = str(manifest.facts["name"])
    if not waits_for_approval(objects, name, run_id):
        return Promotion(run_id=run_id, asked=False)
    said = ask_for_promotion(store, name, run_id, within_hours)
    registry = settle_promotion(store, name, said)
    tracking = yaml.safe_load(objects.get(manifest.files["spec.yaml"].key))["tracking"]["mlflow"]
    in_use = registry["champion"] == run_id
    if in_use and tracking is not None:
        mirrored(tracking, objects, name)
    return Promotion(run_id=run_id, asked=True, in_use=in_use, by=said.by, reason=said.reason, note=registry["note"])
