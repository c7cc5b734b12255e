//! The token algorithm as published: load, check the token, commit the state with what is to be sent, create a token for each
//! output, checkpoint which tokens they are, dispatch, delete the message's own token, clean up. Tokens are records of their own;
//! the checkpoint is what makes two attempts send the same tokens.
//!
//! Source: token-based deduplication, <https://exactly-once.github.io/posts/token-based-deduplication/>: `LoadByCorrelationId`, `ContainsToken`,
//! `Persist`, `CreateTokens`, `Persist`, `Dispatch`, `RemoveToken`, `Persist`, in this order. In its best form: all tokens of a message
//! are created in one batch, one that sends nothing has no checkpoint, and a conflict resumes where it was, without processing again.
//! Tokens of attempts that lost stay behind, as the authors say; to register them first would cost a call more (`registered`).

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::side_by_side::plan::{Account, Hop};
use crate::side_by_side::rival::{
    Carried, Desk, Loaded, Rival, STATE, Settle, decode, encode, token_partition,
};
use crate::side_by_side::table::{Condition, Key, TableError, Write};

/// Tokens with a checkpoint.
pub struct PublishedToken;

#[derive(Default, Serialize, Deserialize)]
struct Document {
    account: Account,
    transactions: BTreeMap<String, Vec<Outgoing>>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Outgoing {
    hop: Hop,
    token: Option<String>,
}

/// The sort key of a token.
const TOKEN: &str = "token";

fn token_key(token: &str) -> Key {
    Key::new(token_partition(token), TOKEN)
}

fn create(token: &str) -> Write {
    Write::put(token_key(token), 1, "{}", Condition::Any)
}

/// A name that no other attempt gives.
fn new_token() -> String {
    format!("{:032x}", fastrand::u128(..))
}

impl Rival for PublishedToken {
    const NAME: &'static str = "published-token";
    const TITLE: &'static str = "tokens as published, with a checkpoint";
    const SOURCE: &'static str = "exactly-once.github.io, token-based deduplication";

    fn admit(hop: Hop) -> (Carried, Vec<Write>) {
        let token = new_token();
        let write = create(&token);
        (Carried { token: Some(token), ..Carried::new(hop) }, vec![write])
    }

    async fn process(desk: &Desk, message: Carried) -> Result<Settle, TableError> {
        let Some(token) = &message.token else { return Ok(Settle::Acknowledge) };
        let partition = desk.partition(&message.hop);
        let key = Key::new(&*partition, STATE);
        let mut document: Loaded<Document> = desk.load(&partition).await?;
        if desk.get_one(token_key(token)).await?.is_none() {
            return Ok(Settle::Acknowledge);
        }
        if !document.value.transactions.contains_key(&message.id) {
            let outputs = desk.handle(&mut document.value.account, &message.hop);
            let outputs = outputs.into_iter().map(|hop| Outgoing { hop, token: None }).collect();
            document.value.transactions.insert(message.id.clone(), outputs);
            if !desk.write(vec![document.write(key.clone())]).await? {
                return Ok(Settle::PutBack);
            }
            document.written();
        }
        // From here on only this message's transaction in the document matters; a lost race reloads and looks at it again.
        let outputs = loop {
            let Some(outputs) = document.value.transactions.get_mut(&message.id) else {
                // Somebody else has finished it.
                return Ok(Settle::Acknowledge);
            };
            if outputs.iter().all(|output| output.token.is_some()) {
                break outputs.clone();
            }
            let tokens: Vec<_> = outputs.iter().map(|_| new_token()).collect();
            desk.batch(tokens.iter().map(|token| create(token)).collect()).await?;
            for (output, token) in outputs.iter_mut().zip(tokens) {
                output.token = Some(token);
            }
            if checkpoint(desk, &key, &partition, &message.id, &mut document).await? {
                break document.value.transactions.get(&message.id).cloned().unwrap_or_default();
            }
        };
        desk.send(outputs.into_iter().map(|Outgoing { hop, token }| Carried { token, ..Carried::new(hop) }));
        desk.write(vec![Write::delete(token_key(token))]).await?;
        document.value.transactions.remove(&message.id);
        while !desk.write(vec![document.write(key.clone())]).await? {
            document = desk.load(&partition).await?;
            if document.value.transactions.remove(&message.id).is_none() {
                break;
            }
        }
        Ok(Settle::Acknowledge)
    }

    fn account(state: &Bytes) -> Result<Account, TableError> {
        decode::<Document>(state).map(|document| document.account)
    }

    fn deduplication_in_state(state: &Bytes) -> usize {
        let transactions = decode::<Document>(state).map(|document| document.transactions);
        transactions.map_or(0, |open| if open.is_empty() { 0 } else { encode(&open).len() })
    }
}

/// Writes the tokens down. If another message was faster, the tokens are put into its document and written again; if another
/// attempt at this one was, its tokens count. Says whether ours are decided.
async fn checkpoint(
    desk: &Desk,
    key: &Key,
    partition: &str,
    id: &str,
    document: &mut Loaded<Document>,
) -> Result<bool, TableError> {
    loop {
        if desk.write(vec![document.write(key.clone())]).await? {
            document.written();
            return Ok(true);
        }
        let ours = document.value.transactions.remove(id).unwrap_or_default();
        *document = desk.load(partition).await?;
        match document.value.transactions.get_mut(id) {
            Some(theirs) if theirs.iter().all(|output| output.token.is_none()) => *theirs = ours,
            _ => return Ok(false),
        }
    }
}
