//! The promises of a store, by the suite that all stores run: on the emulator in the process, and on two servers that have
//! nothing in common.

mod in_process {
    use tollgate_testkit::store_conformance::Subject;

    use crate::tables::in_process_store;

    tollgate_testkit::store_conformance_tests!(|| async {
        let (dynamodb, store) = in_process_store().await;
        Subject::new(store).keeping(dynamodb)
    });
}

mod servers {
    use tollgate_dynamodb_emulator::{ServerKind, external_endpoint};
    use tollgate_testkit::store_conformance::{self, Subject};

    use crate::tables::fresh_store_with;

    /// ministack counts a transaction's bytes in JSON, where binary values are a third longer, and the names besides.
    const MINISTACK_TRANSACTION_BYTES_MAX: usize = 2_800_000;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_store_keeps_its_promises_on_dynoxide_as_a_server() {
        keeps_its_promises_on(ServerKind::Dynoxide).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_store_keeps_its_promises_on_ministack() {
        keeps_its_promises_on(ServerKind::Ministack).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_store_keeps_its_promises_on_dynamodb_local() {
        keeps_its_promises_on(ServerKind::DynamoDbLocal).await;
    }

    async fn keeps_its_promises_on(kind: ServerKind) {
        let Some(endpoint) = external_endpoint(kind) else { return };
        let transaction_bytes_max = match kind {
            ServerKind::Ministack => MINISTACK_TRANSACTION_BYTES_MAX,
            _ => usize::MAX,
        };
        store_conformance::run(|| async {
            let client = endpoint.client();
            Subject::new(
                fresh_store_with(client, |builder| builder.transaction_bytes_max(transaction_bytes_max))
                    .await,
            )
        })
        .await;
    }
}
