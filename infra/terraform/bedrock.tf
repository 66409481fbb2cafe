# What Bedrock takes on to read rows and write results: provider.role_arn of the spec. Only for jobs of this account and region.
data "aws_iam_policy_document" "bedrock_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["bedrock.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }

    condition {
      test     = "ArnLike"
      variable = "aws:SourceArn"
      values   = [for kind in ["model-customization-job", "model-invocation-job"] : "${local.bedrock}:${local.account}:${kind}/*"]
    }
  }
}

# Files are named by providers/bedrock.py and bedrock_batch.py: KEY-train.jsonl, KEY-validation.jsonl and KEY-results/ of a tuning,
# prooftune-….jsonl and prooftune-…-answers/ of a batch.
data "aws_iam_policy_document" "bedrock" {
  statement {
    sid       = "ReadRows"
    actions   = ["s3:GetObject"]
    resources = ["${aws_s3_bucket.store.arn}/${var.bedrock_prefix}/*"]
  }

  statement {
    sid       = "WriteResults"
    actions   = ["s3:PutObject"]
    resources = [for folder in ["results", "answers"] : "${aws_s3_bucket.store.arn}/${var.bedrock_prefix}/*-${folder}/*"]
  }

  statement {
    sid       = "List"
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.store.arn]

    condition {
      test     = "StringLikeIfExists"
      variable = "s3:prefix"
      values   = ["${var.bedrock_prefix}/*"]
    }
  }

  statement {
    sid       = "KeyOfTheBucket"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = [aws_kms_key.store.arn]

    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = ["s3.${var.region}.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "bedrock" {
  name               = "${var.name}-bedrock"
  description        = "Bedrock reads Prooftune's rows and writes its results"
  assume_role_policy = data.aws_iam_policy_document.bedrock_trust.json
}

resource "aws_iam_role_policy" "bedrock" {
  name   = "rows-and-results"
  role   = aws_iam_role.bedrock.id
  policy = data.aws_iam_policy_document.bedrock.json
}
