//! The state of every account, as those who follow the change log know it.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::directory::{CursorRefusal, ExplainedState, Housekeeping, Update};
use crate::store::directory::Happening;
use crate::store::{EntryState, Gap, Takedown};
use atcomm_net::identity::HandleCheck;
use ipld_core::cid::Cid;

const DIDS: [&str; 3] = [ALICE, BOB, "did:plc:cccccccccccccccccccccccc"];
const RELAY: &str = "relay https://relay.example.com";

/// Age at which changes are deleted here.
pub(super) const HISTORY: Duration = Duration::from_secs(5 * 24 * 3600);

/// One event of an account, of its servers or of this program.
#[derive(Debug, Clone)]
enum Step {
    Put,
    PutInvalid,
    Delete,
    /// The account writes something else.
    Touch,
    Rotate,
    Move,
    /// A refresh ends with the newest proof, or with another finding.
    Refresh(Answer),
    /// A refresh finds the proof of an earlier commit.
    Backwards(usize),
    /// A stream brings a proof, perhaps an old one.
    Stream(usize),
    /// A relay says that the account is taken down, or is not.
    Takedown(bool),
    /// The document claims a name, or none.
    Claim(Option<bool>),
    Check(HandleCheck),
    Gap,
    Mark,
    Later(u64),
    /// The housekeeping goes over the file.
    Clean,
    Restart,
    /// A reader of the log reads a page.
    Read,
}

#[derive(Debug, Clone)]
enum Answer {
    Proof,
    AbsentUnproven,
    Inactive(AccountStatus),
    Missing,
    Deleted,
    Unverifiable,
    Unreachable,
}

fn step() -> impl Strategy<Value = Step> {
    let hidden = prop_oneof![
        Just(AccountStatus::Deactivated),
        Just(AccountStatus::Takendown),
        Just(AccountStatus::Other("resting".to_owned())),
    ];
    let answer = prop_oneof![
        6 => Just(Answer::Proof),
        2 => Just(Answer::AbsentUnproven),
        2 => hidden.prop_map(Answer::Inactive),
        2 => Just(Answer::Missing),
        1 => Just(Answer::Deleted),
        2 => Just(Answer::Unverifiable),
        2 => Just(Answer::Unreachable),
    ];
    let check = prop_oneof![
        3 => Just(HandleCheck::Verified(Handle::parse("shared.example.com").unwrap())),
        1 => Just(HandleCheck::Invalid),
        1 => Just(HandleCheck::Inconclusive),
    ];
    prop_oneof![
        5 => Just(Step::Put),
        1 => Just(Step::PutInvalid),
        2 => Just(Step::Delete),
        1 => Just(Step::Touch),
        1 => Just(Step::Rotate),
        1 => Just(Step::Move),
        10 => answer.prop_map(Step::Refresh),
        1 => (0..9_usize).prop_map(Step::Backwards),
        3 => (0..9_usize).prop_map(Step::Stream),
        2 => any::<bool>().prop_map(Step::Takedown),
        3 => any::<Option<bool>>().prop_map(Step::Claim),
        3 => check.prop_map(Step::Check),
        1 => Just(Step::Gap),
        1 => Just(Step::Mark),
        3 => prop_oneof![1..7200_u64, 70_000..300_000_u64, 1_000_000..2_700_000_u64]
            .prop_map(Step::Later),
        1 => Just(Step::Clean),
        1 => Just(Step::Restart),
        3 => Just(Step::Read),
    ]
}

struct Account {
    repo: TestRepo,
    seed: u8,
    proofs: Vec<Proven>,
    pds: &'static str,
    claimed: Option<Handle>,
}

impl Account {
    fn new(did: &str, seed: u8) -> Self {
        let mut repo = TestRepo::new(did, seed);
        let first = repo.put(&package(&peer(seed), &[MEDIATOR]));
        Self {
            repo,
            seed,
            proofs: vec![first],
            pds: "https://pds.example.com",
            claimed: None,
        }
    }

    fn write(&mut self, record: &serde_json::Value) {
        self.seed = self.seed.wrapping_add(7);
        let proven = self.repo.put(record);
        self.proofs.push(proven);
    }

    fn has_record(&self) -> bool {
        matches!(self.repo.prove(), Proven::Present(_))
    }
}

/// What one who follows the log knows.
#[derive(Default)]
struct Follower {
    position: i64,
    stream: Option<String>,
    known: BTreeMap<Did, (EntryState, Option<Cid>)>,
    /// How the entries that are gone ended.
    ended: BTreeMap<Did, ChangeKind>,
}

impl Follower {
    async fn read(&mut self, directory: &Directory, all: bool) {
        let checked = directory.check_cursor(self.position, self.stream.clone());
        match checked.await.unwrap() {
            Ok(log) => self.stream = Some(log.stream),
            Err(CursorRefusal::TooOld) => *self = Self::default(),
            Err(refusal) => panic!("{refusal:?}"),
        }
        loop {
            let page = directory.updates_after(self.position).await.unwrap();
            self.position = page.reached;
            page.updates
                .into_iter()
                .for_each(|update| self.take(update));
            if page.is_last || !all {
                break;
            }
        }
    }

    fn take(&mut self, update: Update) {
        let served = update.state.as_ref().is_some_and(EntryState::is_served);
        assert_eq!(update.package.is_some(), served, "{update:?}");
        if let Some(state) = update.state {
            self.ended.remove(&update.did);
            self.known.insert(update.did, (state, update.record));
        } else {
            self.known.remove(&update.did);
            self.ended.insert(update.did, update.kind);
        }
    }

    /// Returns the word for the state of an account, by what the log has told.
    fn word(&self, did: &Did) -> ExplainedState {
        match (self.known.get(did), self.ended.get(did)) {
            (Some((state, _)), _) => {
                ExplainedState::of_parts(&state.status, state.state, state.regressed)
            }
            (None, Some(ChangeKind::Deleted)) => ExplainedState::Deleted,
            (None, Some(_)) => ExplainedState::Dropped,
            (None, None) => ExplainedState::Unknown,
        }
    }
}

/// What a consumer of the channel has: records, and what accounts are called.
#[derive(Default)]
struct Reader {
    position: i64,
    records: BTreeMap<String, String>,
    identities: BTreeMap<String, (String, String)>,
}

impl Reader {
    async fn read(&mut self, directory: &Directory, all: bool) {
        loop {
            let page = directory.channel_after(self.position, 0).await.unwrap();
            for event in &page.events {
                assert!(event.position_before() >= self.position);
                self.take(&serde_json::from_slice(&event.body).unwrap());
            }
            self.position = page.reached;
            if page.is_last || !all {
                break;
            }
        }
    }

    fn take(&mut self, event: &serde_json::Value) {
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        if event["type"] == "identity" {
            let identity = &event["identity"];
            let said = (text(&identity["handle"]), text(&identity["status"]));
            assert_eq!(identity["is_active"], said.1 == "active");
            self.identities.insert(text(&identity["did"]), said);
            return;
        }
        let record = &event["record"];
        let did = text(&record["did"]);
        if record["action"] == "delete" {
            self.records.remove(&did);
        } else {
            assert_eq!(record["record"]["$type"], "at.didcomm.keyPackage");
            self.records.insert(did, text(&record["cid"]));
        }
    }
}

impl World {
    pub(super) async fn restart(&mut self) {
        self.directory.shutdown().await;
        let path = self._dir.path().join("directory.db");
        let store = DirectoryStore::open(&path).unwrap();
        let directory = Directory::bind(store, self.clock.clone(), 1 << 20).await;
        let directory = directory.unwrap().with_limits(Limits {
            history: HISTORY,
            ..Limits::default()
        });
        directory.begin_log().await.unwrap();
        self.directory = Arc::new(directory);
    }

    async fn observe(&self, account: &Account, finding: Finding, authority: Authority) {
        let mut seen = self.seen(&account.repo, finding, authority).await;
        let (claimed, now) = (account.claimed.as_ref(), self.clock.now());
        seen.identity = Some(facts(&account.repo, account.pds, claimed, now));
        self.apply(seen).await;
    }

    async fn refresh(&self, account: &Account, answer: &Answer) {
        let finding = match answer {
            Answer::Proof => found(account.repo.prove()),
            Answer::AbsentUnproven => Finding::AbsentUnproven,
            Answer::Inactive(status) => Finding::Inactive(status.clone()),
            Answer::Missing => Finding::Missing,
            Answer::Deleted => Finding::Deleted,
            Answer::Unverifiable => Finding::Unverifiable {
                reason: "proof_signature",
                detail: "x".to_owned(),
            },
            Answer::Unreachable => UNREACHABLE,
        };
        self.observe(account, finding, Authority::Pds).await;
    }

    async fn batch(&self, batch: Batch) {
        self.directory.apply_batch(batch).await.unwrap();
    }

    async fn step(&mut self, account: &mut Account, step: &Step) {
        match step {
            Step::Put => {
                let record = package(&peer(account.seed), &[MEDIATOR]);
                account.write(&record);
                self.refresh(account, &Answer::Proof).await;
            }
            Step::PutInvalid => {
                let seed = account.seed;
                account.write(&serde_json::json!({"$type": "at.didcomm.keyPackage", "did": seed}));
            }
            Step::Delete if account.has_record() => {
                let proven = account.repo.delete();
                account.proofs.push(proven);
            }
            Step::Touch => {
                account.seed = account.seed.wrapping_add(1);
                let note = u32::try_from(account.proofs.len()).unwrap();
                let proven = account.repo.touch(note);
                account.proofs.push(proven);
            }
            Step::Rotate => {
                account.seed = account.seed.wrapping_add(1).max(1);
                account.repo.rotate(account.seed);
                account.proofs.push(account.repo.prove());
            }
            Step::Move => account.pds = "https://other.example.net",
            Step::Refresh(answer) => self.refresh(account, answer).await,
            Step::Backwards(which) => {
                let proven = account.proofs[which % account.proofs.len()].clone();
                self.observe(account, found(proven), Authority::Pds).await;
            }
            Step::Stream(which) => {
                let proven = account.proofs[which % account.proofs.len()].clone();
                self.observe(account, found(proven), Authority::Stream)
                    .await;
            }
            Step::Claim(claimed) => {
                let name = |own| {
                    if own {
                        "shared.example.com"
                    } else {
                        "other.example.com"
                    }
                };
                account.claimed = claimed.map(|own| Handle::parse(name(own)).unwrap());
            }
            Step::Check(check) => {
                if let Some(claimed) = &account.claimed {
                    let now = self.clock.now();
                    let did = &account.repo.did;
                    let applied = self
                        .directory
                        .apply_handle(did, claimed, check.clone(), now);
                    applied.await.unwrap();
                    self.clock.advance(Duration::from_secs(1));
                }
            }
            Step::Later(seconds) => self.clock.advance(Duration::from_secs(*seconds)),
            Step::Restart => self.restart().await,
            Step::Clean => self.clean().await,
            Step::Delete | Step::Read => {}
            Step::Takedown(_) | Step::Gap | Step::Mark => self.disturb(account, step).await,
        }
    }

    /// What sources say of accounts, and do not say.
    async fn disturb(&self, account: &Account, step: &Step) {
        match step {
            Step::Takedown(hides) => {
                let status = hides.then_some(AccountStatus::Takendown);
                let takedown = Takedown {
                    did: account.repo.did.clone(),
                    source: RELAY.to_owned(),
                    status,
                };
                self.batch(Batch {
                    takedowns: vec![takedown],
                    ..Batch::default()
                })
                .await;
            }
            Step::Gap => {
                let gap = Gap {
                    source: RELAY.to_owned(),
                    reason: "hole",
                    since: self.clock.now(),
                    pds: None,
                    covered: [].into(),
                };
                self.batch(Batch {
                    gap: Some(gap),
                    ..Batch::default()
                })
                .await;
            }
            _ => drop(self.directory.mark_gap().await.unwrap()),
        }
    }

    pub(super) async fn clean(&self) {
        let mut housekeeping = Housekeeping::new(Arc::clone(&self.directory));
        housekeeping.round().await.unwrap();
    }

    /// The present state of every account, by its entry.
    async fn states(&self) -> BTreeMap<Did, (EntryState, Option<Cid>)> {
        let mut states = BTreeMap::new();
        for did in DIDS {
            let did = Did::parse(did).unwrap();
            let account = did.clone();
            let entry = self.directory.store().query(move |q| q.entry(&account));
            if let Some(entry) = entry.await.unwrap() {
                let state = EntryState::of(&entry);
                let cid = entry.cid.filter(|_| state.has_record());
                states.insert(did, (state, cid));
            }
        }
        states
    }
}

/// Runs the steps. `accounts` says whom each of them concerns.
async fn run(steps: &[(usize, Step)]) {
    let mut w = World::new().await;
    w.restart().await;
    let mut accounts: Vec<Account> = (1..)
        .zip(DIDS)
        .map(|(seed, did)| Account::new(did, seed))
        .collect();
    let (mut follower, mut reader) = (Follower::default(), Reader::default());
    for (which, step) in steps {
        w.step(&mut accounts[which % DIDS.len()], step).await;
        if matches!(step, Step::Read) {
            follower.read(&w.directory, false).await;
            reader.read(&w.directory, false).await;
        }
    }
    // A handle that is confirmed no more is taken away by the next round.
    w.clean().await;
    let states = w.states().await;
    follower.read(&w.directory, true).await;
    assert_eq!(follower.known, states, "of one who has followed");
    let mut new = Follower::default();
    new.read(&w.directory, true).await;
    assert_eq!(new.known, states, "of one who begins");
    // The word that explains an account is that of its state in the log, also of one that is gone.
    for did in DIDS.map(|did| Did::parse(did).unwrap()) {
        let explained = w.directory.explain(&did).await.unwrap();
        assert_eq!(explained.state, new.word(&did), "{did}");
        let known = new.known.get(&did).map(|(state, _)| &state.status);
        assert_eq!(explained.status.as_ref(), known, "{did}");
    }
    let is_too_old = {
        let position = reader.position;
        let checked = w.directory.check_cursor(position, None).await.unwrap();
        checked == Err(CursorRefusal::TooOld)
    };
    let mut readers = vec![Reader::default()];
    if !is_too_old {
        readers.push(reader);
    }
    for mut reader in readers {
        reader.read(&w.directory, true).await;
        let served: BTreeMap<String, String> = states
            .iter()
            .filter(|(_, (state, _))| state.is_served())
            .map(|(did, (_, cid))| (did.to_string(), cid.unwrap().to_string()))
            .collect();
        assert_eq!(reader.records, served);
        for (did, (state, _)) in &states {
            let (handle, status) = &reader.identities[did.as_str()];
            let shown = state
                .handle
                .as_ref()
                .map_or("handle.invalid", Handle::as_str);
            assert_eq!(handle, shown, "{did}");
            assert_eq!(status == "active", state.status.is_active(), "{did}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is observed, missed, forgotten or restarted: the state that the log tells of each
    /// account is the state of its entry, and the one that explains the account.
    #[test]
    fn the_log_tells_the_state_of_every_account(
        steps in proptest::collection::vec((0..DIDS.len(), step()), 1..60)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(run(&steps));
    }
}

async fn kinds_after(w: &World, position: i64) -> Vec<ChangeKind> {
    let page = w.directory.updates_after(position).await.unwrap();
    page.updates.iter().map(|update| update.kind).collect()
}

#[tokio::test]
async fn the_end_of_a_regression_and_a_proof_of_what_was_said_are_changes() {
    let mut w = World::new().await;
    w.restart().await;
    let mut repo = TestRepo::new(ALICE, 1);
    let first = repo.put(&package(&peer(10), &[MEDIATOR]));
    w.pds(&repo, first.clone()).await;
    let again = repo.touch(1);
    w.pds(&repo, again).await;
    assert_eq!(w.pds(&repo, first).await, Outcome::Regressed);
    let newer = repo.touch(2);
    assert_eq!(w.pds(&repo, newer).await, Outcome::Proven);
    w.finding(&repo, Finding::AbsentUnproven).await;
    let gone = repo.delete();
    assert_eq!(w.pds(&repo, gone).await, Outcome::NotEnrolled);
    use ChangeKind::{Package, Recovered, Regressed, Removed};
    let kinds = [Package, Regressed, Recovered, Removed, Removed];
    assert_eq!(kinds_after(&w, 0).await, kinds);
    assert_eq!(w.kinds(&repo).await, kinds);
}

#[tokio::test]
async fn the_package_of_a_hidden_account_is_not_shown_to_later_readers() {
    let mut w = World::new().await;
    w.restart().await;
    let mut repo = TestRepo::new(ALICE, 1);
    let there = repo.put(&package(&peer(10), &[MEDIATOR]));
    w.pds(&repo, there.clone()).await;
    let shown = w.directory.updates_after(0).await.unwrap();
    assert_eq!(shown.updates[0].package.as_ref().unwrap().peer, peer(10));
    w.finding(&repo, Finding::Inactive(AccountStatus::Takendown))
        .await;
    assert_eq!(kinds_after(&w, 0).await, [ChangeKind::Status]);
    w.pds(&repo, there).await;
    use ChangeKind::{Package, Status};
    assert_eq!(kinds_after(&w, 0).await, [Package, Status, Status]);
}

#[tokio::test]
async fn a_key_and_a_package_that_change_at_once_are_one_update() {
    let mut w = World::new().await;
    w.restart().await;
    let mut account = Account::new(ALICE, 1);
    w.refresh(&account, &Answer::Proof).await;
    let first = w.directory.log().await.unwrap().newest;
    account.repo.rotate(2);
    account.write(&package(&peer(99), &[MEDIATOR]));
    w.refresh(&account, &Answer::Proof).await;
    use ChangeKind::{Identity, Package};
    assert_eq!(w.kinds(&account.repo).await, [Package, Identity, Package]);
    let page = w.directory.updates_after(first).await.unwrap();
    assert_eq!(page.updates.len(), 1);
    assert_eq!(page.updates[0].package.as_ref().unwrap().peer, peer(99));
    let events = w
        .directory
        .channel_after(first, first)
        .await
        .unwrap()
        .events;
    let events: Vec<serde_json::Value> = events
        .iter()
        .map(|event| serde_json::from_slice(&event.body).unwrap())
        .collect();
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["record"]["action"], "update");
    assert_eq!(events[0]["record"]["live"], true);
    // It is a rotation for those who count.
    let now = w.clock.now();
    let happened = w.directory.store().query(move |q| q.happened(now, 1));
    let happened = happened.await.unwrap();
    assert!(happened.contains(&(Happening::Rotation, 1)), "{happened:?}");
}
