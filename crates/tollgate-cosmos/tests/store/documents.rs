//! What other clients see of a container: business items as their own JSON, and nothing that they could not leave alone.

use std::sync::Arc;

use tollgate_proto::{ItemName, ItemValue, Store};
use tollgate_testkit::store_conformance::Partition;

use crate::accounts::{CONTAINER, DATABASE, account, store};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_client_reads_business_items_as_documents_and_its_own_stay_untouched() {
    let emulator = account().start().unwrap();
    let store: Arc<dyn Store> = Arc::new(store(&emulator).await);
    let mut partition = Partition::of_key(&store, "order/4711");
    let client = emulator.client().await.unwrap();
    let container = client
        .database_client(DATABASE.to_owned())
        .container_client(CONTAINER.to_owned(), None)
        .await
        .unwrap();
    let own = serde_json::json!({ "id": "profile", "pk": "order/4711", "name": "Ada" });
    container.create_item("order/4711", "profile", &own, None).await.unwrap();

    let mut commit = partition.next_commit();
    let order = ItemValue::Json(r#"{"customer":"Ada","cents":1200,"lines":[{"sku":"tea"}]}"#.into());
    commit.items = vec![(ItemName::new("orders/4711").unwrap(), Some(order))];
    partition.commit(commit).await;

    let read = async |id: &'static str| -> serde_json::Value {
        container.read_item("order/4711", id, None).await.unwrap().into_model().unwrap()
    };
    let order = read("orders~2F4711").await;
    assert_eq!(order["customer"], "Ada");
    assert_eq!(order["lines"][0]["sku"], "tea");
    assert_eq!(read("profile").await["name"], "Ada");
}
