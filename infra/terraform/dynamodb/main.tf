# The table: partition and sort key, on demand, with expiry of deduplication records, and protected against loss.

resource "aws_dynamodb_table" "tollgate" {
  name         = var.table_name
  billing_mode = "PAY_PER_REQUEST"
  hash_key     = var.partition_key
  range_key    = var.sort_key

  deletion_protection_enabled = var.deletion_protection

  attribute {
    name = var.partition_key
    type = "S"
  }

  attribute {
    name = var.sort_key
    type = "S"
  }

  ttl {
    attribute_name = var.expiry_attribute
    enabled        = true
  }

  point_in_time_recovery {
    enabled = var.point_in_time_recovery
  }

  # AWS's own key is what a table has without this block.
  dynamic "server_side_encryption" {
    for_each = var.kms_key_arn == null ? [] : [var.kms_key_arn]
    content {
      enabled     = true
      kms_key_arn = server_side_encryption.value
    }
  }

  dynamic "on_demand_throughput" {
    for_each = var.max_read_request_units == null && var.max_write_request_units == null ? [] : [1]
    content {
      max_read_request_units  = var.max_read_request_units
      max_write_request_units = var.max_write_request_units
    }
  }

  tags = var.tags

  # There is no `replica` block, and must be none: replicas of a global table are eventually consistent, and a stale read
  # processes a message twice; with multi-region strong consistency there are neither transactions nor time to live.
}
