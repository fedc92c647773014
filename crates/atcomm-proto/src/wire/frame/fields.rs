//! The fields of payloads, and the events made from them.

use super::error::{EventFault, FrameError, Framing};
use super::event::{
    Account, Commit, EventType, Identity, MAX_BLOCKS, MAX_NAME, MAX_OPS, MAX_SEQ, MAX_SYNC_BLOCKS,
    RecordOp, Sync,
};
use crate::syntax::{MAX_DID_LEN, RECORD_PATH};
use crate::wire::cbor::{CID_LEN, CborReader};

pub(super) fn set<T>(slot: &mut Option<T>, value: Option<T>) -> Result<(), FrameError> {
    if slot.is_some() {
        return Err(FrameError::Framing(Framing::DuplicateField));
    }
    *slot = value;
    Ok(())
}

/// Returns the beginning of `text`, at most `max` bytes.
pub(super) fn cut(text: &str, max: usize) -> &str {
    text.get(..text.floor_char_boundary(max)).unwrap_or(text)
}

/// The fields of all payloads. One reader serves every type, since their names do not collide.
#[derive(Default)]
pub(super) struct Fields<'a> {
    pub(super) seq: Option<u64>,
    repo: Option<&'a str>,
    did: Option<&'a str>,
    rev: Option<&'a str>,
    since: Option<&'a str>,
    time: Option<&'a str>,
    commit: Option<&'a [u8; CID_LEN]>,
    prev_data: Option<&'a [u8; CID_LEN]>,
    blocks: Option<&'a [u8]>,
    ops: Option<Ops<'a>>,
    too_big: Option<bool>,
    active: Option<bool>,
    status: Option<&'a str>,
    pub(super) name: Option<&'a str>,
    pub(super) error: Option<&'a str>,
    pub(super) message: Option<&'a str>,
    /// Whether a text of the payload, also one that is not read, is not UTF-8.
    bad_text: bool,
}

impl<'a> Fields<'a> {
    /// Reads a payload; `None` if it is not a map.
    pub(super) fn read(reader: &mut CborReader<'a>) -> Result<Option<Self>, FrameError> {
        let mut fields = Self::default();
        Ok(fields.fill(reader)?.then_some(fields))
    }

    /// Reads a payload; after an error the fields before it are there. Returns whether the payload
    /// is a map.
    pub(super) fn fill(&mut self, reader: &mut CborReader<'a>) -> Result<bool, FrameError> {
        let Some(pairs) = reader.map()? else {
            return Ok(false);
        };
        let f = self;
        for _ in 0..pairs {
            match reader.key()? {
                "seq" => set(&mut f.seq, reader.unsigned()?)?,
                "repo" => set(&mut f.repo, reader.text()?)?,
                "did" => set(&mut f.did, reader.text()?)?,
                "rev" => set(&mut f.rev, reader.text()?)?,
                "since" => set(&mut f.since, reader.text()?)?,
                "time" => set(&mut f.time, reader.text()?)?,
                "commit" => set(&mut f.commit, reader.block_link()?)?,
                "prevData" => set(&mut f.prev_data, reader.block_link()?)?,
                "blocks" => set(&mut f.blocks, reader.bytes()?)?,
                "ops" => set(&mut f.ops, Ops::read(reader)?)?,
                "tooBig" => set(&mut f.too_big, reader.bool()?)?,
                "active" => set(&mut f.active, reader.bool()?)?,
                "status" => set(&mut f.status, reader.text()?)?,
                "name" => set(&mut f.name, reader.text()?)?,
                "error" => set(&mut f.error, reader.text()?)?,
                "message" => set(&mut f.message, reader.text()?)?,
                _ => reader.skip()?,
            }
        }
        f.bad_text = reader.has_bad_text();
        Ok(true)
    }

    pub(super) fn commit(self) -> Result<Commit<'a>, FrameError> {
        let seq = self.seq()?;
        let read = || {
            let ops = self.ops.as_ref().ok_or(EventFault::Field("ops"))?;
            if ops.count > MAX_OPS {
                return Err(EventFault::TooManyOps);
            }
            let since = match self.since {
                Some(since) => Some(named("since", Some(since), MAX_NAME)?),
                None => None,
            };
            Ok(Commit {
                seq,
                repo: named("repo", self.repo, MAX_DID_LEN)?,
                rev: named("rev", self.rev, MAX_NAME)?,
                since,
                time: named("time", self.time, MAX_NAME)?,
                commit: self.commit.ok_or(EventFault::Field("commit"))?,
                prev_data: self.prev_data,
                blocks: self.blocks(MAX_BLOCKS)?,
                ops: ops.count,
                op: ops.ours.transpose()?,
                too_big: self.too_big.unwrap_or(false),
            })
        };
        self.judged(EventType::Commit, seq, read())
    }

    pub(super) fn sync(self) -> Result<Sync<'a>, FrameError> {
        let seq = self.seq()?;
        let read = || {
            Ok(Sync {
                seq,
                did: named("did", self.did, MAX_DID_LEN)?,
                rev: named("rev", self.rev, MAX_NAME)?,
                time: named("time", self.time, MAX_NAME)?,
                blocks: self.blocks(MAX_SYNC_BLOCKS)?,
            })
        };
        self.judged(EventType::Sync, seq, read())
    }

    pub(super) fn identity(self) -> Result<Identity<'a>, FrameError> {
        let seq = self.seq()?;
        let read = || {
            Ok(Identity {
                seq,
                did: named("did", self.did, MAX_DID_LEN)?,
                time: named("time", self.time, MAX_NAME)?,
            })
        };
        self.judged(EventType::Identity, seq, read())
    }

    pub(super) fn account(self) -> Result<Account<'a>, FrameError> {
        let seq = self.seq()?;
        let read = || {
            let status = match self.status {
                Some(status) => Some(named("status", Some(status), MAX_NAME)?),
                None => None,
            };
            Ok(Account {
                seq,
                did: named("did", self.did, MAX_DID_LEN)?,
                time: named("time", self.time, MAX_NAME)?,
                active: self.active.ok_or(EventFault::Field("active"))?,
                status,
            })
        };
        self.judged(EventType::Account, seq, read())
    }

    /// Returns the event that was read, if no text of it is damaged.
    fn judged<T>(
        &self,
        event: EventType,
        seq: u64,
        read: Result<T, EventFault>,
    ) -> Result<T, FrameError> {
        let fault = match read {
            Ok(read) if !self.bad_text => return Ok(read),
            Ok(_) => EventFault::Text,
            Err(fault) => fault,
        };
        let did = match event {
            EventType::Commit => self.repo,
            EventType::Sync | EventType::Identity | EventType::Account => self.did,
        };
        Err(FrameError::Event {
            seq,
            did: did.filter(|did| is_possible(did)).map(str::to_owned),
            event,
            fault,
        })
    }

    /// Returns the DID in the payload, whatever its type.
    pub(super) fn named_account(&self) -> Option<&'a str> {
        self.repo.or(self.did).filter(|did| is_possible(did))
    }

    fn seq(&self) -> Result<u64, FrameError> {
        self.seq
            .filter(|seq| (1..=MAX_SEQ).contains(seq))
            .ok_or(FrameError::Framing(Framing::Seq))
    }

    fn blocks(&self, max: usize) -> Result<&'a [u8], EventFault> {
        let blocks = self.blocks.ok_or(EventFault::Field("blocks"))?;
        if blocks.len() > max {
            return Err(EventFault::BlocksTooLarge);
        }
        Ok(blocks)
    }
}

/// Returns whether a DID has a possible length.
fn is_possible(did: &str) -> bool {
    !did.is_empty() && did.len() <= MAX_DID_LEN
}

fn named<'a>(
    field: &'static str,
    text: Option<&'a str>,
    max: usize,
) -> Result<&'a str, EventFault> {
    text.filter(|text| !text.is_empty() && text.len() <= max)
        .ok_or(EventFault::Field(field))
}

/// The operations of a commit.
struct Ops<'a> {
    count: u64,
    /// The operation on the key package's path.
    ours: Option<Result<RecordOp<'a>, EventFault>>,
}

impl<'a> Ops<'a> {
    fn read(reader: &mut CborReader<'a>) -> Result<Option<Self>, FrameError> {
        let Some(count) = reader.array()? else {
            return Ok(None);
        };
        let mut ours = None;
        for _ in 0..count {
            // An operation that is not a map is ignored.
            let Some(pairs) = reader.map()? else {
                continue;
            };
            let (mut path, mut action, mut cid) = (None, None, None);
            for _ in 0..pairs {
                match reader.key()? {
                    "path" => set(&mut path, reader.text()?)?,
                    "action" => set(&mut action, reader.text()?)?,
                    "cid" => set(&mut cid, reader.block_link()?)?,
                    _ => reader.skip()?,
                }
            }
            if path != Some(RECORD_PATH) {
                continue;
            }
            ours = Some(match (&ours, action, cid) {
                (None, Some("create"), Some(cid)) => Ok(RecordOp::Create { cid }),
                (None, Some("update"), Some(cid)) => Ok(RecordOp::Update { cid }),
                (None, Some("delete"), None) => Ok(RecordOp::Delete),
                // Also a second operation on the path, which makes the commit ambiguous.
                _ => Err(EventFault::Operation),
            });
        }
        Ok(Some(Self { count, ours }))
    }
}
