//! How fast the emulators are, so that a figure of a store on one of them can be judged: conditional updates of 1 KB items by
//! 1 and by 64 clients, through the whole SDK. Which emulators answer depends on what can be started on this machine.
//!
//! `cargo run --release -p tollgate-dynamodb-emulator --example emulator_speed`

use std::time::Instant;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use tokio::task::JoinSet;
use tollgate_dynamodb_emulator::{Endpoint, InProcessDynamoDb, ServerKind};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const TABLE: &str = "speed";
const UPDATES: usize = 6_400;
const ITEM_BYTES: usize = 1_000;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    println!("{:<28} {:>12} {:>12}   updates a second", "", "1 client", "64 clients");
    measure("dynoxide, in process", &InProcessDynamoDb::new().client()).await?;
    for kind in [ServerKind::Dynoxide, ServerKind::Ministack, ServerKind::DynamoDbLocal] {
        match Endpoint::start(kind) {
            Ok(server) => measure(&format!("{kind}, server"), &server.client()).await?,
            Err(error) => println!("{kind}: not measured: {error}"),
        }
    }
    Ok(())
}

async fn measure(name: &str, client: &Client) -> Result<(), Failure> {
    create_table(client).await?;
    let alone = updates_per_second(client, 1).await?;
    let together = updates_per_second(client, 64).await?;
    println!("{name:<28} {alone:>12.0} {together:>12.0}");
    Ok(())
}

async fn updates_per_second(client: &Client, clients: usize) -> Result<f64, Failure> {
    let before = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..clients {
        let client = client.clone();
        tasks.spawn(async move {
            for _ in 0..UPDATES / clients {
                update(&client, &format!("{clients}-{number}")).await?;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let updates = (UPDATES / clients * clients) as f64;
    Ok(updates / before.elapsed().as_secs_f64())
}

async fn update(client: &Client, pk: &str) -> Result<(), Failure> {
    let text = |value: &str| AttributeValue::S(value.to_owned());
    client
        .update_item()
        .table_name(TABLE)
        .key("pk", text(pk))
        .key("sk", text("state"))
        .update_expression("SET v = :v ADD n :one")
        .condition_expression("attribute_not_exists(n) OR n >= :one")
        .expression_attribute_values(":v", text(&"x".repeat(ITEM_BYTES)))
        .expression_attribute_values(":one", AttributeValue::N("1".to_owned()))
        .send()
        .await?;
    Ok(())
}

async fn create_table(client: &Client) -> Result<(), Failure> {
    let mut create = client.create_table().table_name(TABLE).billing_mode(BillingMode::PayPerRequest);
    for (name, kind) in [("pk", KeyType::Hash), ("sk", KeyType::Range)] {
        let attribute =
            AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S);
        create = create
            .attribute_definitions(attribute.build()?)
            .key_schema(KeySchemaElement::builder().attribute_name(name).key_type(kind).build()?);
    }
    create.send().await?;
    Ok(())
}
