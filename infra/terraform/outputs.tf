output "store_uri" {
  description = "store.uri of the spec."
  value       = "s3://${aws_s3_bucket.store.id}/${var.store_prefix}"
}

output "bedrock_bucket" {
  description = "provider.bucket of the spec."
  value       = "s3://${aws_s3_bucket.store.id}/${var.bedrock_prefix}"
}

output "bedrock_role_arn" {
  description = "provider.role_arn of the spec."
  value       = aws_iam_role.bedrock.arn
}

output "worker_role_arn" {
  description = "Role of the pods of prooftune-worker and prooftune-job."
  value       = aws_iam_role.worker.arn
}

output "repository_url" {
  description = "Where images are pushed to: newName in infra/kubernetes/."
  value       = aws_ecr_repository.images.repository_url
}

output "cluster_name" {
  description = "For: aws eks update-kubeconfig --name"
  value       = aws_eks_cluster.this.name
}
