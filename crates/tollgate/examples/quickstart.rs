//! The example of the README: an order is placed by a request, and its customer earns points in another partition. Run
//! it as often as you like: it is the same request each time, so there is one order, and there are ten points.
//!
//! `cargo run -p tollgate --example quickstart`

use std::sync::Arc;
use std::time::Duration;

use tollgate::{Endpoint, Gate, HandlerError, Message, Tx, proto::StoreAlias};
use tollgate_brokers::InProcessBroker;
use tollgate_embedded::EmbeddedStore;

#[derive(serde::Serialize, serde::Deserialize)]
struct Earned(u64);

impl Message for Earned {
    const TYPE: &'static str = "shop.earned";
}

async fn add_points(tx: Tx, Earned(points): Earned) -> Result<(), HandlerError> {
    let before: u64 = tx.get("points").await?.unwrap_or(0);
    tx.put("points", &(before + points))?;
    Ok(())
}

async fn place_order(tx: Tx) -> Result<String, HandlerError> {
    tx.put("state", "placed")?;
    tx.send("customers", "customer/ada", &Earned(10))?;
    Ok("thank you".to_owned())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::temp_dir().join("tollgate-quickstart");
    let store = EmbeddedStore::open(directory.join("store"), StoreAlias::new("main")?)?;
    let broker = InProcessBroker::builder().durable(directory.join("broker")).open()?;
    let gate = Gate::builder()
        .store(Arc::new(store))
        .broker(Arc::new(broker))
        .endpoint(Endpoint::new("orders"))
        .endpoint(Endpoint::new("customers").preload("points").on(add_points))
        .open()
        .await?;

    let (orders, day) = (gate.edge("orders")?, Duration::from_secs(24 * 3600));
    let answer: String = orders.execute("order/4711", "request-1", day, place_order).await?;
    println!("{answer}");

    // The points are counted by a message, a moment later: look until they are there.
    let customers = gate.edge("customers")?;
    let points = loop {
        let look = async |tx: Tx| Ok(tx.get::<u64>("points").await?);
        if let Some(points) = customers.advance("customer/ada", "look", look).await? {
            break points;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let done = gate.close().await;
    println!("ada has {points} points; {} requests were replayed", done.replays);
    Ok(())
}
