"""What an S3 server's refusals mean, and what to do about each. Codes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prooftune.errors import ProoftuneError, StoreUnavailable, TransientError

SET_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN for temporary ones), or AWS_PROFILE"
_NO_BUCKET = "there is no such bucket; create it or correct {field}"
_REGION = "the bucket is in another region; set AWS_REGION to it"
_DENIED = (
    "access is denied; check the credentials, which need s3:GetObject and s3:ListBucket here, and to write also s3:PutObject, "
    "s3:DeleteObject, s3:AbortMultipartUpload and s3:ListBucketMultipartUploads; in a bucket encrypted with a KMS key also kms:Decrypt and "
    "kms:GenerateDataKey"
)
_ADVICE = {
    "NoSuchBucket": _NO_BUCKET,
    "404": _NO_BUCKET,  # HEAD is answered without a body, so that the status is all there is; a missing object is seen to before
    "InvalidAccessKeyId": f"the access key is unknown to the server; {SET_CREDENTIALS}",
    "SignatureDoesNotMatch": f"the secret key does not belong to the access key; {SET_CREDENTIALS}",
    "ExpiredToken": f"the credentials have expired; {SET_CREDENTIALS}",
    "InvalidToken": f"the session token is not valid; {SET_CREDENTIALS}",
    "RequestTimeTooSkewed": "this machine's clock differs too much from the server's; set it",
    "PermanentRedirect": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "301": _REGION,
}
_TRANSIENT = {
    "SlowDown",
    "RequestTimeout",
    "Throttling",
    "ThrottlingException",
    "OperationAborted",
    # Bytes that were damaged on their way: the server refused them, and another try sends them again.
    "IncompleteBody",
    "BadDigest",
    "XAmzContentSHA256Mismatch",
    "XAmzContentChecksumMismatch",
    # A retry inside the SDK finished an upload whose first answer got lost: the next try finds the object.
    "NoSuchUpload",
}


def refusal(response: Mapping[str, Any], where: str, field: str) -> ProoftuneError:
    """The error for a request that an S3 server refused; the server's own text is left out, for it can hold the access key.

    ``where`` says what was being done, ``field`` is the spec's field that names the place.
    """
    code = response["Error"].get("Code", "")
    status = response["ResponseMetadata"]["HTTPStatusCode"]
    if code in _TRANSIENT or status >= 500 or status == 429:
        return TransientError(f"{where}: the server answered {status} {code}; try again")
    advice = _ADVICE.get(code) or (_DENIED if status == 403 else "check {field}, the endpoint and the bucket's settings")
    return StoreUnavailable(f"{where}: {advice.format(field=field)} ({status} {code})")
