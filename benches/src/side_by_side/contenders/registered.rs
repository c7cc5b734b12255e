//! Register, prepare, commit, publish, clean up, with a claim check: the message's body lies in the store, and reading it is the token
//! check. Before an attempt creates the bodies of its outputs it registers their name; the commit decides whose are published;
//! what other attempts have registered is deleted. Nothing is decided by a second write of the document, but the registration
//! costs one call and its end another.
//!
//! Source: the published reference implementation of the token algorithm's sequel, exactly-once.github.io ("register, prepare,
//! commit, publish"). In its best form: outputs are prepared in one batch, registrations end in the transaction that ends the message.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::side_by_side::plan::{Account, Hop};
use crate::side_by_side::rival::{
    Carried, Desk, Loaded, Rival, STATE, Settle, decode, encode, token_partition,
};
use crate::side_by_side::table::{Condition, Key, TableError, Write};

/// Register, prepare, commit, publish.
pub struct Registered;

#[derive(Default, Serialize, Deserialize)]
struct Document {
    account: Account,
    /// Messages that were committed and not finished: the attempt, and the outputs without their bodies.
    committed: BTreeMap<String, Committed>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Committed {
    attempt: String,
    outputs: Vec<Hop>,
}

/// The sort key of a body.
const BODY: &str = "body";

fn body_key(token: &str) -> Key {
    Key::new(token_partition(token), BODY)
}

fn token_of(attempt: &str, place: usize) -> String {
    format!("{attempt}.{place}")
}

fn new_attempt() -> String {
    format!("{:032x}", fastrand::u128(..))
}

fn registration_prefix(id: &str) -> String {
    format!("registration#{id}#")
}

fn store_body(token: &str, hop: &Hop) -> Write {
    Write::put(body_key(token), 1, hop.body.clone(), Condition::Any)
}

/// The message without its body: the claim check.
fn claim(hop: &Hop, token: String) -> Carried {
    Carried { token: Some(token), ..Carried::new(Hop { body: String::new(), ..*hop }) }
}

impl Rival for Registered {
    const NAME: &'static str = "registered";
    const TITLE: &'static str = "register, prepare, commit, publish, with claim check";
    const SOURCE: &'static str = "exactly-once.github.io, the reference implementation";

    fn admit(hop: Hop) -> (Carried, Vec<Write>) {
        let token = token_of(&new_attempt(), 0);
        let write = store_body(&token, &hop);
        (claim(&hop, token), vec![write])
    }

    async fn process(desk: &Desk, message: Carried) -> Result<Settle, TableError> {
        let Some(token) = &message.token else { return Ok(Settle::Acknowledge) };
        let partition = desk.partition(&message.hop);
        let key = Key::new(&*partition, STATE);
        let mut document: Loaded<Document> = desk.load(&partition).await?;
        let Some(body) = desk.get_one(body_key(token)).await? else {
            return Ok(Settle::Acknowledge);
        };
        if !document.value.committed.contains_key(&message.id) {
            let body = String::from_utf8_lossy(&body.value).into_owned();
            let hop = Hop { body, ..message.hop.clone() };
            let outputs = desk.handle(&mut document.value.account, &hop);
            let attempt = new_attempt();
            if !outputs.is_empty() {
                let registration =
                    Key::new(&*partition, format!("{}{attempt}", registration_prefix(&message.id)));
                desk.write(vec![Write::put(registration, 1, encode(&outputs.len()), Condition::Any)]).await?;
                let prepare = outputs.iter().enumerate();
                let prepare = prepare.map(|(place, hop)| store_body(&token_of(&attempt, place), hop));
                desk.batch(prepare.collect()).await?;
            }
            let outputs = outputs.into_iter().map(|hop| Hop { body: String::new(), ..hop }).collect();
            document.value.committed.insert(message.id.clone(), Committed { attempt, outputs });
            if !desk.write(vec![document.write(key.clone())]).await? {
                return Ok(Settle::PutBack);
            }
            document.written();
        }
        let Some(Committed { attempt, outputs }) = document.value.committed.remove(&message.id) else {
            return Ok(Settle::Acknowledge);
        };
        let claims = outputs.iter().enumerate();
        desk.send(claims.map(|(place, hop)| claim(hop, token_of(&attempt, place))));
        let registrations = desk.query(&partition, &registration_prefix(&message.id)).await?;
        clean_up(desk, &message.id, &attempt, &registrations).await?;
        desk.write(vec![Write::delete(body_key(token))]).await?;
        let mut ended: Vec<_> =
            registrations.into_iter().map(|(sort, _)| Write::delete(Key::new(&*partition, sort))).collect();
        loop {
            ended.push(document.write(key.clone()));
            if desk.write(ended.clone()).await? {
                return Ok(Settle::Acknowledge);
            }
            ended.pop();
            document = desk.load(&partition).await?;
            if document.value.committed.remove(&message.id).is_none() {
                return Ok(Settle::Acknowledge);
            }
        }
    }

    fn account(state: &Bytes) -> Result<Account, TableError> {
        decode::<Document>(state).map(|document| document.account)
    }

    fn deduplication_in_state(state: &Bytes) -> usize {
        let committed = decode::<Document>(state).map(|document| document.committed);
        committed.map_or(0, |open| if open.is_empty() { 0 } else { encode(&open).len() })
    }
}

/// Deletes what attempts that lost have prepared.
async fn clean_up(
    desk: &Desk,
    id: &str,
    winner: &str,
    registrations: &[(String, crate::side_by_side::table::Record)],
) -> Result<(), TableError> {
    let mut others = Vec::new();
    for (sort, record) in registrations {
        let attempt = sort.trim_start_matches(&registration_prefix(id));
        if attempt != winner {
            let outputs: usize = decode(&record.value)?;
            others.extend((0..outputs).map(|place| Write::delete(body_key(&token_of(attempt, place)))));
        }
    }
    if others.is_empty() { Ok(()) } else { desk.batch(others).await }
}
