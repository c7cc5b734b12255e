# What a deployment decides. Everything has a default but the table's name.

variable "table_name" {
  description = "Name of the table."
  type        = string

  validation {
    condition     = can(regex("^[a-zA-Z0-9_.-]{3,255}$", var.table_name))
    error_message = "A table's name has 3 to 255 letters, digits, underscores, hyphens and dots."
  }
}

variable "partition_key" {
  description = "Name of the partition key, a string. The store has to be told the same."
  type        = string
  default     = "pk"
}

variable "sort_key" {
  description = "Name of the sort key, a string. The store has to be told the same."
  type        = string
  default     = "sk"
}

variable "expiry_attribute" {
  description = "Attribute by which DynamoDB deletes deduplication records whose time is over (seconds since the Unix epoch). Your own items must not use it for anything else."
  type        = string
  default     = "expires_at"
}

variable "deletion_protection" {
  description = "Whether the table refuses to be deleted. To delete it means to process messages in flight a second time, or never."
  type        = bool
  default     = true
}

variable "point_in_time_recovery" {
  description = "Whether the table can be restored to any second of the last 35 days."
  type        = bool
  default     = true
}

variable "kms_key_arn" {
  description = "Customer managed key that encrypts the table. Null: a key that AWS owns. The key's use must then be granted to the consumers besides the policies of this module."
  type        = string
  default     = null
}

variable "max_read_request_units" {
  description = "Bound of read units a second in on-demand mode: a bound of the bill. Null: the account's quota."
  type        = number
  default     = null
}

variable "max_write_request_units" {
  description = "Bound of write units a second in on-demand mode: a bound of the bill. Null: the account's quota."
  type        = number
  default     = null
}

variable "alarm_actions" {
  description = "ARNs that are told when an alarm goes off and when it is over, such as an SNS topic."
  type        = list(string)
  default     = []
}

variable "alarm_period_seconds" {
  description = "Length of the periods in which alarms count."
  type        = number
  default     = 60
}

variable "alarm_periods" {
  description = "How many periods in succession must exceed a threshold. Short bursts are retried by the store and need nobody."
  type        = number
  default     = 5
}

variable "throttled_requests_threshold" {
  description = "Throttled requests in one period that are too many."
  type        = number
  default     = 100
}

variable "system_errors_threshold" {
  description = "Requests answered by status 500 in one period that are too many."
  type        = number
  default     = 10
}

variable "failed_conditions_threshold" {
  description = "Failed conditions in one period that are too many. Some are part of the algorithm: two consumers raced for one partition, and one of them loads again."
  type        = number
  default     = 1000
}

variable "transaction_conflicts_threshold" {
  description = "Requests in one period that were refused because of a transaction on the same item and are too many: a hot partition."
  type        = number
  default     = 1000
}

variable "tags" {
  description = "Tags of the table, the policies and the alarms."
  type        = map(string)
  default     = {}
}
