# What workers and jobs may do: exactly the calls of src/prooftune/storage/s3*.py and providers/bedrock*.py. tests/contracts/test_terraform.py
# compares the actions here with the calls there.
data "aws_iam_policy_document" "worker" {
  statement {
    sid       = "Objects"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
    resources = [for prefix in [var.store_prefix, var.bedrock_prefix] : "${aws_s3_bucket.store.arn}/${prefix}/*"]
  }

  # "IfExists", because S3 asks for s3:ListBucket also where a request names no prefix: HeadBucket, and to answer 404, not 403, for an object that
  # is not there. Names of other prefixes of this bucket can so be listed, which is why it is Prooftune's alone; their content cannot be read.
  statement {
    sid       = "Lists"
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.store.arn]

    condition {
      test     = "StringLikeIfExists"
      variable = "s3:prefix"
      values   = [for prefix in [var.store_prefix, var.bedrock_prefix] : "${prefix}/*"]
    }
  }

  statement {
    sid       = "UnfinishedUploads"
    actions   = ["s3:ListBucketMultipartUploads"]
    resources = [aws_s3_bucket.store.arn]
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

  # Lists are of the account: IAM knows no resource for them.
  statement {
    sid = "BedrockLists"
    actions = [
      "bedrock:ListCustomModelDeployments",
      "bedrock:ListFoundationModels",
      "bedrock:ListModelCustomizationJobs",
      "bedrock:ListModelInvocationJobs",
      "bedrock:ListProvisionedModelThroughputs",
    ]
    resources = ["*"]
  }

  dynamic "statement" {
    for_each = length(var.base_models) == 0 ? [] : ["named"]

    content {
      sid       = "TuneAndAskNamedModels"
      actions   = ["bedrock:CreateModelCustomizationJob", "bedrock:CreateModelInvocationJob", "bedrock:InvokeModel"]
      resources = local.base_models
    }
  }

  # A job, its model and what serves it belong to the account. Their ids are AWS's, so that no name of ours can stand here: what is created
  # carries the tag prooftune-run-key.
  statement {
    sid = "BedrockJobsAndModels"
    actions = [
      "bedrock:CreateModelCustomizationJob",
      "bedrock:GetModelCustomizationJob",
      "bedrock:StopModelCustomizationJob",
      "bedrock:TagResource",
    ]
    resources = ["${local.bedrock}:${local.account}:model-customization-job/*", "${local.bedrock}:${local.account}:custom-model/*"]
  }

  statement {
    sid       = "BedrockBatches"
    actions   = ["bedrock:CreateModelInvocationJob", "bedrock:GetModelInvocationJob"]
    resources = ["${local.bedrock}:${local.account}:model-invocation-job/*"]
  }

  statement {
    sid = "BedrockServing"
    actions = [
      "bedrock:CreateCustomModelDeployment",
      "bedrock:CreateProvisionedModelThroughput",
      "bedrock:DeleteCustomModelDeployment",
      "bedrock:DeleteProvisionedModelThroughput",
      "bedrock:GetCustomModelDeployment",
      "bedrock:GetProvisionedModelThroughput",
      "bedrock:InvokeModel",
    ]
    resources = [
      "${local.bedrock}:${local.account}:custom-model/*",
      "${local.bedrock}:${local.account}:custom-model-deployment/*",
      "${local.bedrock}:${local.account}:provisioned-model/*",
    ]
  }

  statement {
    sid       = "LendBedrockItsRole"
    actions   = ["iam:PassRole"]
    resources = [aws_iam_role.bedrock.arn]

    condition {
      test     = "StringEquals"
      variable = "iam:PassedToService"
      values   = ["bedrock.amazonaws.com"]
    }
  }
}

locals {
  # Tuned under one id (…:0:128k), asked under another (…:0): see asked_as in providers/bedrock_models.py.
  asked       = [for model in var.base_models : replace(model, "/^(.+:[0-9]+):[0-9]+k$/", "$1")]
  base_models = [for model in distinct(concat(var.base_models, local.asked)) : "${local.bedrock}::foundation-model/${model}"]
}

data "aws_iam_policy_document" "worker_trust" {
  statement {
    actions = ["sts:AssumeRole", "sts:TagSession"]

    principals {
      type        = "Service"
      identifiers = ["pods.eks.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }

    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [aws_eks_cluster.this.arn]
    }
  }
}

resource "aws_iam_role" "worker" {
  name               = "${var.name}-worker"
  description        = "Workers and jobs of Prooftune: its bucket, and Bedrock"
  assume_role_policy = data.aws_iam_policy_document.worker_trust.json
}

resource "aws_iam_role_policy" "worker" {
  name   = "prooftune"
  role   = aws_iam_role.worker.id
  policy = data.aws_iam_policy_document.worker.json
}

resource "aws_eks_pod_identity_association" "worker" {
  for_each = toset(["prooftune-worker", "prooftune-job"]) # of infra/kubernetes/base/service-accounts.yaml

  cluster_name    = aws_eks_cluster.this.name
  namespace       = var.namespace
  service_account = each.value
  role_arn        = aws_iam_role.worker.arn
}
