# Who may do what. Consumers get exactly the actions that the store calls; whoever creates tables gets another policy. Neither
# is attached to anybody here.

data "aws_iam_policy_document" "consumer" {
  # TransactWriteItems and TransactGetItems are no actions of their own: IAM asks for the ones they consist of.
  statement {
    sid       = "Items"
    resources = [aws_dynamodb_table.tollgate.arn]
    actions = [
      "dynamodb:BatchGetItem",
      "dynamodb:BatchWriteItem",
      "dynamodb:DeleteItem",
      "dynamodb:GetItem",
      "dynamodb:PutItem",
      "dynamodb:Scan",
      "dynamodb:UpdateItem",
    ]
  }

  # The store looks at the start whether the table can keep its promises.
  statement {
    sid       = "Verify"
    resources = [aws_dynamodb_table.tollgate.arn]
    actions   = ["dynamodb:DescribeTable", "dynamodb:DescribeTimeToLive"]
  }
}

resource "aws_iam_policy" "consumer" {
  name        = "${var.table_name}-consumer"
  description = "What a consumer may do with the table ${var.table_name}"
  policy      = data.aws_iam_policy_document.consumer.json
  tags        = var.tags
}

# For those who let the store provision its table instead of this module. It deletes nothing.
data "aws_iam_policy_document" "provisioning" {
  statement {
    sid       = "Provision"
    resources = [aws_dynamodb_table.tollgate.arn]
    actions = [
      "dynamodb:CreateTable",
      "dynamodb:DescribeContinuousBackups",
      "dynamodb:DescribeTable",
      "dynamodb:DescribeTimeToLive",
      "dynamodb:Scan",
      "dynamodb:UpdateContinuousBackups",
      "dynamodb:UpdateTimeToLive",
    ]
  }
}

resource "aws_iam_policy" "provisioning" {
  name        = "${var.table_name}-provisioning"
  description = "What is needed to create and change the table ${var.table_name}; not for consumers"
  policy      = data.aws_iam_policy_document.provisioning.json
  tags        = var.tags
}
