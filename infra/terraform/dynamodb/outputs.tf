# What the consumers' configuration and roles need.

output "table_name" {
  description = "Name of the table, for the store's configuration."
  value       = aws_dynamodb_table.tollgate.name
}

output "table_arn" {
  description = "ARN of the table."
  value       = aws_dynamodb_table.tollgate.arn
}

output "consumer_policy_arn" {
  description = "Policy to attach to the role of the consumers."
  value       = aws_iam_policy.consumer.arn
}

output "provisioning_policy_arn" {
  description = "Policy for whoever lets the store provision its table. Not for consumers."
  value       = aws_iam_policy.provisioning.arn
}

output "alarm_arns" {
  description = "ARNs of the alarms, for a dashboard or a composite alarm."
  value       = [for alarm in concat(values(aws_cloudwatch_metric_alarm.by_operation), values(aws_cloudwatch_metric_alarm.by_table)) : alarm.arn]
}
