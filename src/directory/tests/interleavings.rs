//! Facts, proofs, streams and refreshes of one account in any order (invariant 4).

use proptest::prelude::*;

use super::super::apply::{Write, decide};
use super::*;
use atcomm_proto::key::SigningKey;

/// One step of an account, of its servers or of this program.
#[derive(Debug, Clone)]
enum Step {
    /// The account writes its package.
    Put,
    /// The account replaces its signing key, in its document and its repository.
    Rotate,
    /// The document is asked for and cached.
    Ask,
    /// A commit of before arrives in a stream, perhaps for the second time, and is verified under
    /// the cached document.
    Hear(usize),
    /// What was heard is written.
    Write(usize),
    /// A refresh begins, with a new document or the cached one.
    Begin {
        fresh: bool,
    },
    /// A refresh that has begun ends with its answer, or with another.
    End {
        which: usize,
        answer: Answer,
    },
    Later(u64),
    /// The clock goes back. Refreshes of one account run one after the other, and none runs now.
    ClockBack(u64),
}

#[derive(Debug, Clone, Copy)]
enum Answer {
    AsFound,
    Inactive,
    Missing,
    Unreachable,
}

fn step() -> impl Strategy<Value = Step> {
    let answer = prop_oneof![
        4 => Just(Answer::AsFound),
        1 => Just(Answer::Inactive),
        1 => Just(Answer::Missing),
        1 => Just(Answer::Unreachable),
    ];
    prop_oneof![
        3 => Just(Step::Put),
        1 => Just(Step::Rotate),
        2 => Just(Step::Ask),
        3 => (0..8_usize).prop_map(Step::Hear),
        3 => (0..8_usize).prop_map(Step::Write),
        3 => any::<bool>().prop_map(|fresh| Step::Begin { fresh }),
        4 => (0..4_usize, answer).prop_map(|(which, answer)| Step::End { which, answer }),
        2 => (1..7200_u64).prop_map(Step::Later),
        1 => (1..7200_u64).prop_map(Step::ClockBack),
    ]
}

/// An account, its entry, and what is under way.
struct Model {
    repo: TestRepo,
    /// The keys of the account, the newest last.
    keys: Vec<SigningKey>,
    commits: Vec<Proven>,
    entry: Option<Entry>,
    cached: IdentityFacts,
    heard: Vec<Observation>,
    begun: Vec<Observation>,
    now: Timestamp,
}

impl Model {
    fn new() -> Self {
        let mut repo = TestRepo::new(ALICE, 1);
        let first = repo.put(&package(&peer(2), &[MEDIATOR]));
        let now = Timestamp::from_millis(1_800_000_000_000);
        let cached = facts(&repo, "https://pds.example.com", None, now);
        Self {
            keys: vec![repo.key()],
            commits: vec![first],
            repo,
            entry: None,
            cached,
            heard: Vec::new(),
            begun: Vec::new(),
            now,
        }
    }

    fn ask(&mut self) {
        self.now = self.now.plus(Duration::from_millis(1));
        self.cached.key = Some(self.repo.key());
        self.cached.asked_at = self.now;
    }

    fn observation(&self, finding: Finding, authority: Authority) -> Observation {
        let begun = self
            .entry
            .as_ref()
            .map_or_else(Begun::default, |entry| Begun {
                proofs: entry.proofs,
                ..Begun::default()
            });
        Observation {
            did: self.repo.did.clone(),
            identity: Some(self.cached.clone()),
            finding,
            authority,
            trigger: Trigger::Recheck,
            begun,
            at: self.now,
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Put => {
                let n = 2 + u8::try_from(self.commits.len()).unwrap();
                let proven = self.repo.put(&package(&peer(n), &[MEDIATOR]));
                self.commits.push(proven);
            }
            Step::Rotate => {
                self.repo.rotate(1 + u8::try_from(self.keys.len()).unwrap());
                self.keys.push(self.repo.key());
                self.commits.push(self.repo.prove());
            }
            Step::Ask => self.ask(),
            Step::Hear(which) => {
                let commit = self.commits[which % self.commits.len()].clone();
                if Some(commit.commitment().key()) == self.cached.key.as_ref() {
                    let seen = self.observation(found(commit), Authority::Stream);
                    self.heard.push(seen);
                }
            }
            Step::Write(which) if !self.heard.is_empty() => {
                let seen = self.heard.remove(which % self.heard.len());
                self.apply(seen);
            }
            Step::Begin { fresh } => {
                let seen = self.observation(UNREACHABLE, Authority::Pds);
                // A cached document of the future is asked for again.
                if *fresh || self.cached.asked_at > self.now {
                    self.ask();
                }
                let newest = self.repo.prove();
                let finding = if Some(newest.commitment().key()) == self.cached.key.as_ref() {
                    found(newest)
                } else {
                    Finding::Unverifiable {
                        reason: "proof_signature",
                        detail: String::new(),
                    }
                };
                self.begun.push(Observation {
                    identity: Some(self.cached.clone()),
                    finding,
                    ..seen
                });
            }
            Step::End { which, answer } if !self.begun.is_empty() => {
                let mut seen = self.begun.remove(which % self.begun.len());
                match answer {
                    Answer::AsFound => {}
                    Answer::Inactive => {
                        seen.finding = Finding::Inactive(AccountStatus::Deactivated);
                    }
                    Answer::Missing => seen.finding = Finding::Missing,
                    Answer::Unreachable => seen.finding = UNREACHABLE,
                }
                self.apply(seen);
            }
            Step::Later(seconds) => self.now = self.now.plus(Duration::from_secs(*seconds)),
            Step::ClockBack(seconds) => {
                self.begun.clear();
                self.now = self.now.minus(Duration::from_secs(*seconds));
            }
            Step::Write(_) | Step::End { .. } => {}
        }
    }

    fn apply(&mut self, mut seen: Observation) {
        self.now = self.now.plus(Duration::from_millis(1));
        seen.at = self.now;
        let before = self.entry.clone();
        let decision = decide(self.entry.take(), &seen, None);
        self.entry = match decision.write {
            Write::Nothing => before.clone(),
            Write::Put(entry) => Some(entry),
            Write::Delete | Write::Forget => None,
        };
        if let Some(entry) = &self.entry {
            self.check(before.as_ref(), entry);
        }
    }

    /// Returns the place of a key among those of the account.
    fn place(&self, key: Option<&SigningKey>) -> Option<usize> {
        self.keys.iter().position(|known| Some(known) == key)
    }

    fn check(&self, before: Option<&Entry>, entry: &Entry) {
        if entry.state == PackageState::Present && entry.status.is_active() {
            assert_eq!(entry.proof_key, entry.signing_key, "of an earlier key");
        }
        let Some(before) = before else { return };
        let key = |entry: &Entry| self.place(entry.signing_key.as_ref());
        assert!(key(before) <= key(entry), "older facts");
        if before.proof_key == entry.proof_key {
            assert!(before.rev <= entry.rev, "an older revision");
        }
    }
}

proptest! {
    #[test]
    fn inv4_an_entry_never_goes_back_to_older_facts_or_proofs(
        steps in proptest::collection::vec(step(), 1..60)
    ) {
        let mut model = Model::new();
        for step in &steps {
            model.step(step);
        }
    }

    /// Whatever happened, one refresh that runs alone brings the entry to the present.
    #[test]
    fn inv4_a_refresh_that_runs_alone_finds_the_present(
        steps in proptest::collection::vec(step(), 1..60)
    ) {
        let mut model = Model::new();
        for step in &steps {
            model.step(step);
        }
        model.begun.clear();
        model.step(&Step::Begin { fresh: true });
        model.step(&Step::End { which: 0, answer: Answer::AsFound });
        let entry = model.entry.unwrap();
        prop_assert_eq!(entry.state, PackageState::Present);
        prop_assert_eq!(entry.signing_key, Some(model.repo.key()));
        let newest = model.repo.prove();
        prop_assert_eq!(entry.rev, Some(newest.commitment().rev()));
    }
}
