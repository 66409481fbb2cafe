variable "name" {
  description = "What everything is named by: bucket, roles, repository, cluster. Not shared with another installation of the account."
  type        = string
  default     = "prooftune"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{2,28}[a-z0-9]$", var.name))
    error_message = "name is 4 to 30 lower-case letters, digits and dashes, and begins with a letter."
  }
}

variable "region" {
  description = "Where all of it is, Bedrock included: provider.region of the spec, one where Bedrock customises the models that you name."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region is of the form us-west-2."
  }
}

variable "tags" {
  description = "Further tags of every resource."
  type        = map(string)
  default     = {}
}

variable "store_prefix" {
  description = "Where in the bucket Prooftune keeps its state: store.uri of the spec is s3://BUCKET/PREFIX."
  type        = string
  default     = "store"

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$", var.store_prefix))
    error_message = "store_prefix is one or more names between single slashes, without one at either end."
  }
}

variable "bedrock_prefix" {
  description = "Where in the bucket rows and results of Bedrock lie: provider.bucket of the spec is s3://BUCKET/PREFIX. Not below store_prefix."
  type        = string
  default     = "bedrock"

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$", var.bedrock_prefix))
    error_message = "bedrock_prefix is one or more names between single slashes, without one at either end."
  }

  validation {
    condition     = !startswith("${var.bedrock_prefix}/", "${var.store_prefix}/") && !startswith("${var.store_prefix}/", "${var.bedrock_prefix}/")
    error_message = "bedrock_prefix and store_prefix must not lie within one another: Bedrock's role would see Prooftune's state."
  }
}

variable "base_models" {
  description = "Ids of Bedrock's base models that may be prompted and tuned, as backend.model and the ladder name them. None means none."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for model in var.base_models : can(regex("^[a-z0-9-]+\\.[a-z0-9][a-z0-9.:-]*$", model))])
    error_message = "base_models holds ids such as amazon.nova-micro-v1:0:128k, without wildcards."
  }
}

variable "old_versions_days" {
  description = "How long S3 keeps what was overwritten or deleted."
  type        = number
  default     = 30

  validation {
    condition     = var.old_versions_days >= 1 && floor(var.old_versions_days) == var.old_versions_days
    error_message = "old_versions_days is a whole number of days, at least 1."
  }
}

variable "namespace" {
  description = "Namespace of infra/kubernetes/ in the cluster."
  type        = string
  default     = "prooftune"

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", var.namespace))
    error_message = "namespace is the name of a Kubernetes namespace: lower-case letters, digits and dashes."
  }
}

variable "kubernetes_version" {
  description = "Of the cluster, as major.minor."
  type        = string
  default     = "1.33"

  validation {
    condition     = can(regex("^1\\.[0-9]{2}$", var.kubernetes_version))
    error_message = "kubernetes_version is of the form 1.33."
  }
}

variable "subnet_ids" {
  description = "Private subnets of your network, in two availability zones at least, with a way out to the internet or to VPC endpoints."
  type        = list(string)

  validation {
    condition     = length(distinct(var.subnet_ids)) >= 2 && alltrue([for id in var.subnet_ids : can(regex("^subnet-[0-9a-f]+$", id))])
    error_message = "subnet_ids holds two subnets or more, each of the form subnet-0123456789abcdef0."
  }
}

variable "api_access_cidrs" {
  description = "Addresses from which the cluster's API may be reached over the internet; none means from within your network alone."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for cidr in var.api_access_cidrs : can(cidrhost(cidr, 0)) && !endswith(cidr, "/0")])
    error_message = "api_access_cidrs holds networks such as 203.0.113.0/24, never the whole internet."
  }
}

variable "cpu_instance_type" {
  description = "Machine of server, database and the worker without a GPU."
  type        = string
  default     = "m7i.xlarge"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]*[0-9][a-z0-9-]*\\.[a-z0-9-]+$", var.cpu_instance_type))
    error_message = "cpu_instance_type is of the form m7i.xlarge."
  }
}

variable "gpu_instance_type" {
  description = "Machine with a GPU that has bf16: docs/how-to/choose-hardware.md says which model needs which."
  type        = string
  default     = "g6.2xlarge"

  validation {
    condition     = !can(regex("^(g3|g4dn|g4ad|p2|p3)", var.gpu_instance_type))
    error_message = "gpu_instance_type has a GPU older than Ampere, which has no bf16; take g5, g6, g6e, p4d, p5 or newer."
  }
}

variable "gpu_nodes" {
  description = "How many GPU machines there are now, and at most. An autoscaler changes the first, and Terraform leaves that to it."
  type = object({
    now  = number
    most = number
  })
  default = { now = 0, most = 1 }

  validation {
    condition     = var.gpu_nodes.now >= 0 && var.gpu_nodes.most >= 1 && var.gpu_nodes.now <= var.gpu_nodes.most
    error_message = "gpu_nodes.now is between 0 and gpu_nodes.most, which is at least 1."
  }
}

variable "gpu_disk_gb" {
  description = "Of a GPU machine: its images, base models and checkpoints."
  type        = number
  default     = 200

  validation {
    condition     = var.gpu_disk_gb >= 50
    error_message = "gpu_disk_gb is at least 50: the image alone takes more than 10."
  }
}
