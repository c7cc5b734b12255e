//! The audit: reads back what the shop and the provider have on their disks, when both have ended, and compares it with what has to
//! be there. It asks neither of them. What is compared is in [`books`].

mod books;
mod sabotage;

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tollgate::Store;
use tollgate::proto::blobs::collect;
use tollgate::proto::{EffectName, LoadRequest};

pub use self::books::{Books, Found};
pub use self::sabotage::Sabotage;
use crate::house::House;
use crate::leftovers::partitions;
use crate::messages::OrderId;
use crate::show::Input;
use crate::{Failure, provider, shop};

/// Largest invoice that is read.
const INVOICE_BYTES_MAX: usize = 1 << 20;

/// Compares what there is with what has to be there. The clients' complaints are differences too.
pub async fn balance(data: &Path, input: &Input, complaints: &[String]) -> Result<Books, Failure> {
    let mut found = Found::default();
    let shop = House::open(&data.join("shop"), "shop", &shop::ENDPOINTS, 0).await?;
    let provider = House::open(&data.join("provider"), "provider", &provider::ENDPOINTS, 0).await?;
    for (partition, item, value) in items(&*shop.store).await? {
        if let (Some(order), shop::ORDER) = (OrderId::of_partition(&partition), item.as_str()) {
            found.orders.insert(order, read(&partition, &value)?);
        } else if (partition.as_str(), item.as_str()) == (shop::BOOKS, shop::TOTALS) {
            found.shop = read(&partition, &value)?;
        }
    }
    for (partition, item, value) in items(&*provider.store).await? {
        if let (true, Some(order)) =
            (partition.starts_with(provider::ACCOUNTS), item.strip_prefix(provider::PAID))
        {
            found.payments.insert(OrderId::of_key(order), read(&partition, &value)?);
        } else if let (Some(name), provider::ACCOUNT) =
            (partition.strip_prefix(provider::ACCOUNTS), item.as_str())
        {
            found.accounts.insert(name.to_owned(), read(&partition, &value)?);
        } else if (partition.as_str(), item.as_str()) == (provider::LEDGER, provider::TOTALS) {
            found.provider = read(&partition, &value)?;
        }
    }
    found.invoices = invoices(&shop).await?;
    found.remembered = partitions(&*shop.store).await?.iter().map(|scanned| scanned.records).sum();
    found.left = shop.leftovers().await?.and(provider.leftovers().await?);
    found.left.orphan_blobs += provider.blobs.list("").await?.len() as u64;
    shop.close().await?;
    provider.close().await?;
    Ok(Books::compare(input, found, complaints))
}

/// Every item of a store, with its partition and its name.
async fn items(store: &dyn Store) -> Result<Vec<(String, String, Bytes)>, Failure> {
    let mut all = Vec::new();
    for scanned in partitions(store).await? {
        let partition = scanned.partition;
        let request = LoadRequest { partition: partition.clone(), items: scanned.items, records: Vec::new() };
        for loaded in store.load(vec![request]).await {
            for (item, value) in loaded?.items {
                if let Some(value) = value {
                    all.push((partition.to_string(), item.to_string(), value.bytes().clone()));
                }
            }
        }
    }
    Ok(all)
}

async fn invoices(shop: &House) -> Result<BTreeMap<EffectName, Bytes>, Failure> {
    let mut invoices = BTreeMap::new();
    for name in shop.blobs.list("").await? {
        if let Some(content) = shop.blobs.get(&name).await? {
            let content = collect(&name, content, INVOICE_BYTES_MAX).await?;
            invoices.insert(name, content);
        }
    }
    Ok(invoices)
}

fn read<T: DeserializeOwned>(partition: &str, value: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(value).map_err(|error| format!("an item of partition {partition}: {error}").into())
}
