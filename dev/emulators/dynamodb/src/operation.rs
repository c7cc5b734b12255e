//! The operations of DynamoDB that Tollgate's store, its provisioning and its tests use, and what is to be known of each:
//! its name on the wire and by which units it is paid. What an operation does is dynoxide's business.

use std::fmt;

/// An operation of DynamoDB's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the names are DynamoDB's own")]
pub enum Operation {
    GetItem,
    BatchGetItem,
    TransactGetItems,
    Query,
    Scan,
    PutItem,
    UpdateItem,
    DeleteItem,
    BatchWriteItem,
    TransactWriteItems,
    CreateTable,
    DescribeTable,
    UpdateTable,
    DeleteTable,
    ListTables,
    UpdateTimeToLive,
    DescribeTimeToLive,
    UpdateContinuousBackups,
    DescribeContinuousBackups,
}

/// How an operation is paid for where an answer reports units without saying of which kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Units {
    Read,
    Write,
    Nothing,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::GetItem,
        Self::BatchGetItem,
        Self::TransactGetItems,
        Self::Query,
        Self::Scan,
        Self::PutItem,
        Self::UpdateItem,
        Self::DeleteItem,
        Self::BatchWriteItem,
        Self::TransactWriteItems,
        Self::CreateTable,
        Self::DescribeTable,
        Self::UpdateTable,
        Self::DeleteTable,
        Self::ListTables,
        Self::UpdateTimeToLive,
        Self::DescribeTimeToLive,
        Self::UpdateContinuousBackups,
        Self::DescribeContinuousBackups,
    ];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::GetItem => "GetItem",
            Self::BatchGetItem => "BatchGetItem",
            Self::TransactGetItems => "TransactGetItems",
            Self::Query => "Query",
            Self::Scan => "Scan",
            Self::PutItem => "PutItem",
            Self::UpdateItem => "UpdateItem",
            Self::DeleteItem => "DeleteItem",
            Self::BatchWriteItem => "BatchWriteItem",
            Self::TransactWriteItems => "TransactWriteItems",
            Self::CreateTable => "CreateTable",
            Self::DescribeTable => "DescribeTable",
            Self::UpdateTable => "UpdateTable",
            Self::DeleteTable => "DeleteTable",
            Self::ListTables => "ListTables",
            Self::UpdateTimeToLive => "UpdateTimeToLive",
            Self::DescribeTimeToLive => "DescribeTimeToLive",
            Self::UpdateContinuousBackups => "UpdateContinuousBackups",
            Self::DescribeContinuousBackups => "DescribeContinuousBackups",
        }
    }

    /// The operation of that name, if it is one that the emulator answers.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| operation.name() == name)
    }

    /// Whether it changes one item and is no transaction and no batch.
    pub const fn is_single_write(self) -> bool {
        matches!(self, Self::PutItem | Self::UpdateItem | Self::DeleteItem)
    }

    /// Whether it reads or writes items, as opposed to describing or making tables.
    pub const fn is_of_items(self) -> bool {
        !matches!(self.units(), Units::Nothing)
    }

    pub(crate) const fn units(self) -> Units {
        match self {
            Self::GetItem | Self::BatchGetItem | Self::TransactGetItems | Self::Query | Self::Scan => {
                Units::Read
            }
            Self::PutItem
            | Self::UpdateItem
            | Self::DeleteItem
            | Self::BatchWriteItem
            | Self::TransactWriteItems => Units::Write,
            _ => Units::Nothing,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
