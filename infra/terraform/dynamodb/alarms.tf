# What a person should look at. The store retries all of these by itself; alarms are for what does not pass.
#
# CloudWatch counts throttled requests and system errors for each operation apart, so they are summed up over the operations that
# the store calls; failed conditions and transaction conflicts it counts for the table.

locals {
  # DynamoDB reports these under the calls' own names, also those that IAM has no action for.
  operations = {
    batch_get      = "BatchGetItem"
    batch_write    = "BatchWriteItem"
    delete         = "DeleteItem"
    get            = "GetItem"
    scan           = "Scan"
    transact_get   = "TransactGetItems"
    transact_write = "TransactWriteItems"
    update         = "UpdateItem"
  }

  by_operation = {
    throttled-requests = {
      metric      = "ThrottledRequests"
      operations  = local.operations
      threshold   = var.throttled_requests_threshold
      description = "DynamoDB throttles requests to ${var.table_name}. Messages wait, none is lost. Look for a hot partition, or for a bound of the table or the account that the load has reached."
    }
    system-errors = {
      metric      = "SystemErrors"
      operations  = local.operations
      threshold   = var.system_errors_threshold
      description = "DynamoDB answers requests to ${var.table_name} by status 500. Messages wait, none is lost. Look at the health of DynamoDB in this region."
    }
  }

  by_table = {
    failed-conditions = {
      metric      = "ConditionalCheckFailedRequests"
      threshold   = var.failed_conditions_threshold
      description = "Many conditions fail in ${var.table_name}: several processes work on the same partitions, each undoing the other's haste. Look whether the broker could bring a partition's messages to one consumer."
    }
    transaction-conflicts = {
      metric      = "TransactionConflict"
      threshold   = var.transaction_conflicts_threshold
      description = "Many requests meet a transaction on the same item of ${var.table_name}: a hot partition. Look which one."
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "by_operation" {
  for_each = local.by_operation

  alarm_name          = "${var.table_name}-${each.key}"
  alarm_description   = each.value.description
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.threshold
  evaluation_periods  = var.alarm_periods
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
  tags                = var.tags

  metric_query {
    id          = "total"
    label       = each.value.metric
    expression  = "SUM([${join(", ", [for name in keys(each.value.operations) : "FILL(${name}, 0)"])}])"
    return_data = true
  }

  dynamic "metric_query" {
    for_each = each.value.operations
    content {
      id = metric_query.key
      metric {
        namespace   = "AWS/DynamoDB"
        metric_name = each.value.metric
        period      = var.alarm_period_seconds
        stat        = "Sum"
        dimensions = {
          TableName = aws_dynamodb_table.tollgate.name
          Operation = metric_query.value
        }
      }
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "by_table" {
  for_each = local.by_table

  alarm_name          = "${var.table_name}-${each.key}"
  alarm_description   = each.value.description
  namespace           = "AWS/DynamoDB"
  metric_name         = each.value.metric
  dimensions          = { TableName = aws_dynamodb_table.tollgate.name }
  statistic           = "Sum"
  period              = var.alarm_period_seconds
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.threshold
  evaluation_periods  = var.alarm_periods
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
  tags                = var.tags
}
