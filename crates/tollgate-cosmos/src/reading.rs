//! Token reads. The one place where a stale answer does harm: an entry that is still shown after its deletion processes a
//! message twice, one that is not shown yet loses a message. So each read is shown the mark of the physical partition that
//! holds the entry, and an answer that is not bound by such a mark does not count ([`crate::session`]): it is asked for
//! once more, where writes are executed.

use bytes::Bytes;
use futures_util::future::join_all;
use tollgate_proto::{EntryRead, SessionMark, StoreError, TokenRef};

use crate::cosmos_store::CosmosStore;
use crate::document::parse_entry;
use crate::document_id::entry_id;
use crate::failure::Failure;
use crate::session::{is_bound_by, mark_to_show};
use crate::statistics::Operation;

impl CosmosStore {
    pub(crate) async fn read_all(&self, reads: Vec<EntryRead>) -> Vec<Result<Option<Bytes>, StoreError>> {
        join_all(reads.iter().map(|read| self.read_one(read))).await
    }

    async fn read_one(&self, read: &EntryRead) -> Result<Option<Bytes>, StoreError> {
        let EntryRead { token, sessions } = read;
        self.check_token(token)?;
        let id = entry_id(token.entry);
        let marks: Vec<SessionMark> =
            sessions.iter().filter(|mark| mark.store == token.store).cloned().collect();
        let known_scope = self.memory.scope(&token.partition);
        if let Some(shown) = mark_to_show(&marks, known_scope.as_deref()) {
            match self.requests.read(Operation::ReadEntry, &token.partition, &id, Some(shown)).await {
                Ok(answer) => {
                    if let Some(mark) = &answer.mark {
                        self.memory.answered(&token.partition, &mark.scope);
                    }
                    if is_bound_by(answer.mark.as_ref(), shown) {
                        return self.entry_in(token, answer.document.as_deref());
                    }
                }
                // Where writes are executed it is known.
                Err(Failure::Behind) => {}
                Err(failure) => {
                    return Err(failure.of_repeatable(&self.requests.alias, Some(&token.partition)));
                }
            }
        }
        let answer = self.read_at_primary(Operation::ReadEntry, &token.partition, &id).await?;
        if let Some((_, Some(mark))) = &answer {
            self.memory.answered(&token.partition, &mark.scope);
        }
        self.entry_in(token, answer.as_ref().map(|(document, _)| &document[..]))
    }

    fn entry_in(&self, token: &TokenRef, json: Option<&[u8]>) -> Result<Option<Bytes>, StoreError> {
        let what = || format!("outbox entry {}", token.entry);
        json.map(parse_entry).transpose().map_err(|reason| self.corrupt(&token.partition, what(), reason))
    }

    pub(crate) fn check_token(&self, token: &TokenRef) -> Result<(), StoreError> {
        if token.store == self.requests.alias {
            Ok(())
        } else {
            Err(StoreError::ForeignToken { store: self.requests.alias.clone(), token: token.clone() })
        }
    }
}
