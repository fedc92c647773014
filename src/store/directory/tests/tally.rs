//! The counts are those of a full count, whatever is written.

use std::collections::{BTreeMap, BTreeSet};

use atcomm_proto::did_peer::PeerDid;
use proptest::prelude::*;

use super::super::super::schema;
use super::super::tally::LARGEST;
use super::*;

const CID: &str = "bafyreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";

/// Counts by kind and name.
type Counts = BTreeMap<(String, String), i64>;

/// One write.
#[derive(Debug, Clone)]
enum Write {
    Entry(Box<Fields>),
    Delete(u64),
    /// A gap in the stream of a PDS, and the marking of some entries.
    Gap(u64),
    Change(u64, usize, u64, i64),
    Forget(u64),
}

/// What is counted of an entry.
#[derive(Debug, Clone)]
struct Fields {
    n: u64,
    pds: u64,
    status: &'static str,
    state: PackageState,
    reason: Option<&'static str>,
    peer: u64,
    mediators: Vec<u64>,
    regressed: bool,
    doubt: bool,
}

fn fields() -> impl Strategy<Value = Fields> {
    let state = prop_oneof![
        3 => Just(PackageState::Present),
        2 => proptest::sample::select(PackageState::ALL),
    ];
    (
        (0..5_u64, 0..3_u64, 0..5_u64),
        proptest::sample::select(vec!["active", "active", "active", "takendown", "odd"]),
        state,
        proptest::sample::select(vec![None, Some("label"), Some("type")]),
        proptest::collection::vec(0..3_u64, 0..4),
        any::<[bool; 2]>(),
    )
        .prop_map(|(numbers, status, state, reason, mediators, flags)| {
            let ((n, pds, peer), [regressed, doubt]) = (numbers, flags);
            Fields {
                n,
                pds,
                status,
                state,
                reason,
                peer,
                mediators,
                regressed,
                doubt,
            }
        })
}

fn write() -> impl Strategy<Value = Write> {
    let n = 0..5_u64;
    prop_oneof![
        6 => fields().prop_map(|fields| Write::Entry(Box::new(fields))),
        1 => n.clone().prop_map(Write::Delete),
        1 => (1..3_u64).prop_map(Write::Gap),
        4 => (n.clone(), 0..ChangeKind::ALL.len(), 0..3_u64, 0..3_i64)
            .prop_map(|(n, kind, peer, hour)| Write::Change(n, kind, peer, hour)),
        1 => n.prop_map(Write::Forget),
    ]
}

/// Returns a did:peer of one of several key types; the last is none that this program reads.
fn peer_did(n: u64) -> String {
    let key = |purpose: char, codec: [u8; 2], len: usize| {
        let mut bytes = codec.to_vec();
        bytes.resize(2 + len, 0x55 ^ n as u8);
        format!(".{purpose}z{}", bs58::encode(bytes).into_string())
    };
    let x25519 = key('E', [0xec, 1], 32);
    match n {
        0 | 1 => format!("did:peer:2{x25519}{}", key('V', [0xed, 1], 32)),
        2 => format!("did:peer:2{x25519}"),
        3 => {
            let others = [key('E', [0x80, 0x24], 33), key('V', [0xe7, 1], 33)];
            format!("did:peer:2{}{x25519}{}", others[0], others[1])
        }
        _ => "did:peer:2.ü".to_owned(),
    }
}

fn origin(n: u64) -> Option<Origin> {
    (n > 0).then(|| Origin::parse(&format!("https://pds{n}.example")).unwrap())
}

fn put(tx: &Tx<'_>, fields: &Fields) -> Result<(), StoreError> {
    let has_package = fields.state == PackageState::Present;
    let mediators = fields.mediators.iter().filter(|_| has_package);
    tx.put_entry(&Entry {
        handle: None,
        pds: origin(fields.pds),
        status: AccountStatus::parse(fields.status),
        state: fields.state,
        reason: fields.reason.map(str::to_owned),
        peer: has_package.then(|| peer_did(fields.peer)),
        mediators: mediators
            .map(|n| MediatorDid::parse(&format!("did:web:m{n}.example")).unwrap())
            .collect(),
        regressed: fields.regressed,
        doubt_since: fields.doubt.then_some(at(3)),
        ..entry(fields.n)
    })
}

fn change(n: u64, kind: ChangeKind, peer: u64, hour: i64) -> Change {
    Change {
        cid: (peer > 0).then(|| CID.parse().unwrap()),
        peer: (peer > 0).then(|| peer_did(peer)),
        ..Change::bare(did(n), kind, at(hour * 3600))
    }
}

fn run(tx: &Tx<'_>, write: &Write) -> Result<(), StoreError> {
    match write {
        Write::Entry(fields) => put(tx, fields),
        Write::Delete(n) => tx.delete_entry(&did(*n)),
        Write::Gap(pds) => {
            let gap = Gap {
                source: "source".to_owned(),
                reason: "reason",
                since: at(5),
                pds: origin(*pds),
                covered: BTreeSet::new(),
            };
            tx.open_gap_row(&gap, at(9))?;
            tx.mark_gap(2, |_, _| at(10)).map(drop)
        }
        Write::Change(n, kind, peer, hour) => {
            // A package names a did:peer.
            let (kind, peer) = (ChangeKind::ALL[*kind], *peer);
            let peer = if kind == ChangeKind::Package {
                peer.max(1)
            } else {
                peer
            };
            let change = change(*n, kind, peer, *hour);
            tx.append_change(&change, &Owner::default()).map(drop)
        }
        Write::Forget(n) => tx.delete_history(&did(*n)),
    }
}

/// The rows of `tally`.
fn tallied(conn: &Connection) -> Counts {
    let mut query = conn.prepare("SELECT kind, name, count FROM tally").unwrap();
    let rows = query.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)));
    rows.unwrap().map(Result::unwrap).collect()
}

/// The same by a full count of all rows.
fn counted(conn: &Connection) -> Counts {
    let q = Queries(conn);
    let mut counts = Counts::new();
    let mut add = |kind: Tally, name: &str| {
        *counts
            .entry((kind.as_str().to_owned(), name.to_owned()))
            .or_default() += 1;
    };
    let mut claimants: BTreeMap<String, u32> = BTreeMap::new();
    let mut dids = Vec::new();
    q.each_did(|did| dids.push(Did::parse(did).unwrap()))
        .unwrap();
    for did in dids {
        let entry = q.entry(&did).unwrap().unwrap();
        let reason = entry.reason.as_deref().unwrap_or_default();
        if !entry.status.is_active() {
            add(Tally::State, "inactive");
            add(Tally::Inactive, entry.status.as_str());
            continue;
        }
        match entry.state {
            PackageState::Present => add(Tally::State, "enrolled"),
            PackageState::Invalid => add(Tally::Invalid, reason),
            PackageState::Unverifiable => add(Tally::Unverifiable, reason),
            PackageState::Removed | PackageState::RemovedUnproven => {}
        }
        if entry.state != PackageState::Present {
            add(Tally::State, entry.state.as_str());
            continue;
        }
        add(Tally::Pds, entry.pds.as_ref().map_or("", Origin::as_str));
        let peer = entry.peer.unwrap();
        let key_type = PeerDid::parse(&peer).map(|peer| schema::key_type_of(&peer));
        add(Tally::KeyType, key_type.as_deref().unwrap_or("unknown"));
        *claimants.entry(peer).or_default() += 1;
        for mediator in entry.mediators.iter().collect::<BTreeSet<_>>() {
            add(Tally::Mediator, mediator.as_str());
            add(Tally::Mark, "named");
        }
        if entry.regressed {
            add(Tally::Mark, "regressed");
        }
        if entry.doubt_since.is_some() {
            add(Tally::Mark, "inDoubt");
        }
    }
    for _ in claimants.values().filter(|count| **count > 1) {
        add(Tally::Mark, "ambiguous");
    }
    let kinds: Vec<String> = counts.keys().map(|(kind, _)| kind.clone()).collect();
    for kind in kinds {
        *counts.entry(("groups".to_owned(), kind)).or_default() += 1;
    }
    counts
}

/// What the log tells of the package that an account had.
#[derive(Debug, Clone, Default)]
struct Package {
    is_gone: bool,
    peer: Option<String>,
}

/// What happened by the changes in their order, as the table `change_hour` has it.
#[derive(Default)]
struct History {
    had: BTreeMap<u64, Package>,
    counts: BTreeMap<(i64, String), i64>,
}

impl History {
    fn note(&mut self, n: u64, change: &Change) {
        let had = self.had.get(&n).cloned().unwrap_or_default();
        let happening = match change.kind {
            ChangeKind::Package if had.peer == change.peer => None,
            ChangeKind::Package if had.peer.is_some() => Some(Happening::Rotation),
            ChangeKind::Package => Some(Happening::Enrolment),
            ChangeKind::Removed => (!had.is_gone).then_some(Happening::Removal),
            ChangeKind::Deleted => Some(Happening::Deletion),
            _ => None,
        };
        if let Some(happening) = happening {
            let hour = change.seen_at.millis() / 3_600_000;
            let name = happening.as_str().to_owned();
            *self.counts.entry((hour, name)).or_default() += 1;
        }
        let has = match change.kind {
            ChangeKind::Package => Package {
                is_gone: false,
                peer: change.peer.clone(),
            },
            ChangeKind::Unverifiable => Package {
                is_gone: change.cid.is_none(),
                peer: change.peer.clone(),
            },
            ChangeKind::Removed => Package {
                is_gone: true,
                peer: None,
            },
            ChangeKind::Invalid | ChangeKind::Dropped | ChangeKind::Deleted => Package::default(),
            ChangeKind::Status
            | ChangeKind::Identity
            | ChangeKind::Regressed
            | ChangeKind::Recovered => match &change.peer {
                Some(peer) => Package {
                    is_gone: false,
                    peer: Some(peer.clone()),
                },
                None => had,
            },
        };
        self.had.insert(n, has);
    }
}

fn by_hour(conn: &Connection) -> BTreeMap<(i64, String), i64> {
    let mut query = conn
        .prepare("SELECT hour, kind, count FROM change_hour")
        .unwrap();
    let rows = query.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)));
    rows.unwrap().map(Result::unwrap).collect()
}

fn in_memory(migrations: &[schema::Migration]) -> Connection {
    let conn = Connection::open_in_memory().unwrap();
    conn.execute_batch("PRAGMA foreign_keys = ON").unwrap();
    schema::migrate(&conn, migrations).unwrap();
    conn
}

/// Returns the steps before the counts.
fn earlier() -> &'static [schema::Migration] {
    let migrations = schema::DIRECTORY.migrations;
    let step = migrations
        .iter()
        .position(|step| step.contains("CREATE TABLE tally"));
    &migrations[..step.unwrap()]
}

/// Copies the rows of a table to a file of an earlier schema.
fn copy(from: &Connection, to: &Connection, table: &str) {
    let columns: Vec<String> = to
        .prepare(&format!("SELECT name FROM pragma_table_info('{table}')"))
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let list = columns.join(", ");
    let marks = vec!["?"; columns.len()].join(", ");
    let mut read = from
        .prepare(&format!("SELECT {list} FROM {table}"))
        .unwrap();
    let mut rows = read.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let values = (0..columns.len()).map(|i| row.get::<_, rusqlite::types::Value>(i).unwrap());
        to.execute(
            &format!("INSERT INTO {table} ({list}) VALUES ({marks})"),
            rusqlite::params_from_iter(values),
        )
        .unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn counts_are_those_of_a_full_count(
        writes in proptest::collection::vec((write(), any::<bool>()), 1..60),
    ) {
        let conn = in_memory(schema::DIRECTORY.migrations);
        let mut history = History::default();
        for (write, fails) in &writes {
            conn.execute_batch("SAVEPOINT job").unwrap();
            run(&Tx::new(&conn), write).unwrap();
            // A write that fails leaves nothing behind.
            let end = if *fails { "ROLLBACK TO job; RELEASE job" } else { "RELEASE job" };
            conn.execute_batch(end).unwrap();
            match write {
                _ if *fails => {}
                Write::Change(n, ..) => {
                    let newest = Queries(&conn).changes(&did(*n), 1).unwrap();
                    history.note(*n, &newest[0]);
                }
                Write::Forget(n) => drop(history.had.remove(n)),
                _ => {}
            }
            prop_assert_eq!(tallied(&conn), counted(&conn));
            prop_assert_eq!(by_hour(&conn), history.counts.clone());
        }
        // A file of the schema before comes to the same counts.
        let old = in_memory(earlier());
        for table in ["entry", "entry_mediator", "change"] {
            copy(&conn, &old, table);
        }
        schema::migrate(&old, schema::DIRECTORY.migrations).unwrap();
        prop_assert_eq!(tallied(&old), counted(&conn));
        for n in 0..5 {
            run(&Tx::new(&conn), &Write::Delete(n)).unwrap();
        }
        prop_assert_eq!(tallied(&conn), Counts::new());
    }

    /// The hours before the counts were kept are counted from the log as it is.
    #[test]
    fn what_happened_before_is_counted_from_the_log(
        changes in proptest::collection::vec((0..3_u64, 0..ChangeKind::ALL.len(), 0..3_u64, 0..3_i64), 1..40),
    ) {
        let (new, old) = (in_memory(schema::DIRECTORY.migrations), in_memory(earlier()));
        for (n, kind, peer, hour) in changes {
            for conn in [&new, &old] {
                run(&Tx::new(conn), &Write::Change(n, kind, peer, hour)).unwrap();
            }
        }
        schema::migrate(&old, schema::DIRECTORY.migrations).unwrap();
        prop_assert_eq!(by_hour(&old), by_hour(&new));
    }
}

/// A proof of what is known writes no count.
#[test]
fn a_proof_that_changes_nothing_counted_writes_no_count() {
    let conn = in_memory(schema::DIRECTORY.migrations);
    let tx = Tx::new(&conn);
    tx.put_entry(&entry(1)).unwrap();
    let before = tallied(&conn);
    // The counts cannot be written any more.
    conn.execute_batch(
        "CREATE TRIGGER refuse_update BEFORE UPDATE ON tally BEGIN SELECT raise(FAIL, 'written'); END;
         CREATE TRIGGER refuse_insert BEFORE INSERT ON tally BEGIN SELECT raise(FAIL, 'written'); END;
         CREATE TRIGGER refuse_delete BEFORE DELETE ON tally BEGIN SELECT raise(FAIL, 'written'); END;",
    )
    .unwrap();
    let again = Entry {
        proved_at: Some(at(50)),
        checked_at: at(50),
        next_check_at: at(500),
        proofs: 8,
        rev: Some(Rev::parse("3n2wo76pa3k2x").unwrap()),
        handle: None,
        doubt_since: Some(at(4)),
        ..entry(1)
    };
    tx.put_entry(&again).unwrap();
    assert_eq!(tallied(&conn), before);
    assert!(
        tx.put_entry(&Entry {
            state: PackageState::Removed,
            ..again
        })
        .is_err()
    );
}

#[test]
fn the_largest_groups_are_read_in_the_order_of_the_index() {
    let conn = in_memory(schema::DIRECTORY.migrations);
    let tx = Tx::new(&conn);
    for n in 0..9 {
        let pds = origin(1 + [0, 0, 1, 1, 1, 2, 3, 3, 4][n as usize]);
        tx.put_entry(&Entry { pds, ..entry(n) }).unwrap();
    }
    let largest = tx.largest_groups(Tally::Pds, 4).unwrap();
    let expected = [2, 1, 4, 3].map(|n| origin(n).unwrap().as_str().to_owned());
    let names: Vec<&String> = largest.iter().map(|(name, _)| name).collect();
    assert_eq!(names, expected.iter().collect::<Vec<_>>());
    assert_eq!(largest[0].1, 3);
    assert_eq!(tx.tally(Tally::Groups, "pds").unwrap(), 5);
    assert_eq!(
        tx.tally(Tally::Pds, "https://elsewhere.example").unwrap(),
        0
    );
    let mut plan = conn
        .prepare(&format!("EXPLAIN QUERY PLAN {LARGEST}"))
        .unwrap();
    let steps = plan.query_map(("pds", 4), |row| row.get("detail")).unwrap();
    let steps: Vec<String> = steps.map(Result::unwrap).collect();
    assert_eq!(
        steps,
        ["SEARCH tally USING COVERING INDEX tally_largest (kind=?)"]
    );
}

#[test]
fn hours_are_summed_and_forgotten_after_a_month() {
    const MONTH: i64 = 31 * 24;
    let conn = in_memory(schema::DIRECTORY.migrations);
    let tx = Tx::new(&conn);
    let count = |now: i64, hours| tx.happened(at(now * 3600), hours).unwrap();
    for (n, hour) in [(1, 0), (2, 0), (3, 24), (4, 30), (5, 40)] {
        run(&tx, &Write::Change(n, 0, 1, hour)).unwrap();
    }
    run(&tx, &Write::Change(1, 0, 2, 40)).unwrap();
    use Happening::{Enrolment, Rotation};
    assert_eq!(count(40, 24), [(Enrolment, 3), (Rotation, 1)]);
    assert_eq!(count(40, 10), [(Enrolment, 2), (Rotation, 1)]);
    assert_eq!(count(40, 9), [(Enrolment, 1), (Rotation, 1)]);
    assert_eq!(count(39, 720), [(Enrolment, 4)]);
    tx.age_happenings(at(MONTH * 3600)).unwrap();
    assert_eq!(count(40, 720), [(Enrolment, 5), (Rotation, 1)]);
    tx.age_happenings(at((MONTH + 1) * 3600)).unwrap();
    assert_eq!(count(40, 720), [(Enrolment, 3), (Rotation, 1)]);
}
