//! Ways to spoil what is on the disks, after the run and before the audit: whoever trusts an audit wants to see it fail.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use tollgate::proto::EffectName;
use tollgate::proto::blobs::whole;
use tollgate::{Edge, Endpoint, Gate, Tx};
use tollgate_brokers::InProcessBroker;

use super::items;
use crate::house::House;
use crate::messages::{Progress, Step, Sum};
use crate::{Failure, provider, shop};

/// What is spoilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sabotage {
    /// An order is paid a second time.
    SecondPayment,
    /// An order is gone.
    LostOrder,
    /// One letter of an invoice is another one.
    AlteredInvoice,
    /// An invoice is gone.
    LostInvoice,
    /// There is a blob that nothing names.
    OrphanBlob,
    /// There is a message that nobody has processed.
    ForgottenToken,
    /// There is a request at the provider that nobody has removed.
    StoredRequest,
}

impl Sabotage {
    /// Does it.
    pub async fn commit(self, data: &Path) -> Result<(), Failure> {
        match self {
            Self::SecondPayment | Self::StoredRequest => {
                let house = House::open(&data.join("provider"), "provider", &provider::ENDPOINTS, 0).await?;
                self.at_provider(&house).await?;
                house.close().await
            }
            _ => {
                let house = House::open(&data.join("shop"), "shop", &shop::ENDPOINTS, 0).await?;
                self.at_shop(&house).await?;
                house.close().await
            }
        }
    }

    async fn at_provider(self, house: &House) -> Result<(), Failure> {
        let items = items(&*house.store).await?;
        let (gate, edge) = gate(house, "payments").await?;
        if self == Self::StoredRequest {
            let stray = async |tx: Tx| Ok(tx.put("request/0190f3d25f0e7c3a9d538b1c6a2f4e77", &())?);
            edge.advance("payments/requests/7", "sabotage", stray).await?;
        } else {
            let payment = items.into_iter().find(|(_, item, _)| item.starts_with(provider::PAID));
            let (account, item, paid) = payment.ok_or("nothing was paid, so nothing can be paid again")?;
            let Sum { orders, cents } = serde_json::from_slice(&paid)?;
            let twice = Sum { orders: orders + 1, cents: 2 * cents };
            edge.advance(&account, "sabotage", move |tx: Tx| {
                let item = item.clone();
                async move { Ok(tx.put(&item, &twice)?) }
            })
            .await?;
        }
        gate.close().await;
        Ok(())
    }

    async fn at_shop(self, house: &House) -> Result<(), Failure> {
        let invoice = house.blobs.list("").await?.into_iter().next().ok_or("there is no invoice to spoil");
        match self {
            Self::AlteredInvoice => {
                let name = invoice?;
                Ok(house.blobs.put(&name, whole("INVOICE\n\nall is paid")).await?)
            }
            Self::LostInvoice => Ok(house.blobs.delete(&invoice?).await?),
            Self::OrphanBlob => {
                Ok(house.blobs.put(&EffectName::new("invoices/nobody's")?, whole("")).await?)
            }
            _ => {
                let (gate, edge) = gate(house, "orders").await?;
                let orders = items(&*house.store).await?;
                let order = orders.into_iter().find(|(_, item, _)| item == shop::ORDER);
                let (order, ..) = order.ok_or("there is no order to spoil")?;
                if self == Self::LostOrder {
                    edge.advance(&order, "sabotage", async |tx: Tx| Ok(tx.delete(shop::ORDER)?)).await?;
                } else {
                    // Nobody consumes `books` here, so the token stays.
                    edge.advance(&order, "sabotage", async |tx: Tx| {
                        let lost = Progress { step: Step::Paid, cents: 1 };
                        tx.send("books", shop::BOOKS, &lost)?;
                        Ok(())
                    })
                    .await?;
                }
                gate.close().await;
                Ok(())
            }
        }
    }
}

/// A gate on what a process has left, whose messages go nowhere.
async fn gate(house: &House, endpoint: &str) -> Result<(Gate, Edge), Failure> {
    let broker = Arc::new(InProcessBroker::builder().build());
    let gate = Gate::builder()
        .store(Arc::clone(&house.store))
        .broker(broker)
        .endpoint(Endpoint::new(endpoint))
        .wake_up_after(Duration::ZERO)
        .open()
        .await?;
    let edge = gate.edge(endpoint)?;
    Ok((gate, edge))
}
