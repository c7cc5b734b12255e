# What this module needs. It configures no provider: whoever uses the module does.

terraform {
  required_version = ">= 1.5"

  required_providers {
    aws = {
      source = "hashicorp/aws"
      # Earlier ones want both bounds of `on_demand_throughput` or none.
      version = ">= 5.80, < 7.0"
    }
  }
}
