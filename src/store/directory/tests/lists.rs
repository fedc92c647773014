//! The pages of a list together are the list.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::super::schema;
use super::super::lists::{ALL, IN_STATE, MAX_READ, MEDIATORS, OF_MEDIATOR, OF_PDS};
use super::*;

fn origin(n: u64) -> Origin {
    Origin::parse(&format!("https://pds{n}.example")).unwrap()
}

fn mediator(n: u64) -> MediatorDid {
    MediatorDid::parse(&format!("did:web:m{n}.example")).unwrap()
}

/// An account as it is listed.
#[derive(Debug, Clone)]
struct Fields {
    pds: Option<u64>,
    is_active: bool,
    state: PackageState,
    mediators: Vec<u64>,
}

fn fields() -> impl Strategy<Value = Fields> {
    let state = prop_oneof![
        2 => Just(PackageState::Present),
        1 => proptest::sample::select(PackageState::ALL),
    ];
    let mediators = proptest::collection::vec(0..3_u64, 1..4);
    let pds = proptest::option::weighted(0.9, 0..3_u64);
    (pds, proptest::bool::weighted(0.8), state, mediators).prop_map(
        |(pds, is_active, state, mediators)| Fields {
            pds,
            is_active,
            state,
            mediators,
        },
    )
}

fn listed_state(fields: &Fields) -> AccountState {
    if !fields.is_active {
        return AccountState::Inactive;
    }
    match fields.state {
        PackageState::Present => AccountState::Enrolled,
        PackageState::Invalid => AccountState::Invalid,
        PackageState::Removed => AccountState::Removed,
        PackageState::RemovedUnproven => AccountState::RemovedUnproven,
        PackageState::Unverifiable => AccountState::Unverifiable,
    }
}

fn passes(fields: &Fields, filter: &AccountFilter) -> bool {
    let of_pds = filter
        .pds
        .as_ref()
        .is_none_or(|pds| fields.pds.map(origin).as_ref() == Some(pds));
    let in_state = filter
        .state
        .is_none_or(|state| listed_state(fields) == state);
    let named = |wanted: &MediatorDid| {
        let mut named = fields.mediators.iter().map(|n| mediator(*n));
        fields.state == PackageState::Present && named.any(|named| named == *wanted)
    };
    of_pds && in_state && filter.mediator.as_ref().is_none_or(named)
}

fn in_memory() -> Connection {
    let conn = Connection::open_in_memory().unwrap();
    conn.execute_batch("PRAGMA foreign_keys = ON").unwrap();
    schema::migrate(&conn, schema::DIRECTORY.migrations).unwrap();
    conn
}

fn put(tx: &Tx<'_>, n: u64, fields: &Fields) {
    let has_package = fields.state == PackageState::Present;
    let mediators = fields.mediators.iter().filter(|_| has_package);
    let status = if fields.is_active {
        "active"
    } else {
        "suspended"
    };
    tx.put_entry(&Entry {
        pds: fields.pds.map(origin),
        status: AccountStatus::parse(status),
        state: fields.state,
        reason: (fields.state == PackageState::Invalid).then(|| "label".to_owned()),
        peer: has_package.then(|| format!("did:peer:2.{n}")),
        mediators: mediators.map(|n| mediator(*n)).collect(),
        ..entry(n)
    })
    .unwrap();
}

/// Returns all items of a list, and checks each page.
fn all_pages<T>(limit: usize, mut read: impl FnMut(Option<&str>) -> ListPage<T>) -> Vec<T> {
    let (mut items, mut after) = (Vec::new(), None::<String>);
    loop {
        let page = read(after.as_deref());
        assert!(page.items.len() <= limit);
        items.extend(page.items);
        let Some(next) = page.next else {
            return items;
        };
        assert!(Some(&next) > after.as_ref(), "a page that does not go on");
        after = Some(next);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_pages_of_a_list_are_the_accounts_that_pass_its_filter(
        accounts in proptest::collection::vec(fields(), 0..70),
        pds in proptest::option::of(0..4_u64),
        named in proptest::option::of(0..4_u64),
        state in proptest::option::of(proptest::sample::select(AccountState::ALL)),
        limit in 1..25_usize,
    ) {
        let conn = in_memory();
        let tx = Tx::new(&conn);
        for (n, fields) in (0..).zip(&accounts) {
            put(&tx, n, fields);
        }
        let filter = AccountFilter { pds: pds.map(origin), mediator: named.map(mediator), state };
        let listed = all_pages(limit, |after| tx.list_accounts(&filter, after, limit).unwrap());
        let mut expected: Vec<(Did, &Fields)> = (0..)
            .zip(&accounts)
            .filter(|(_, fields)| passes(fields, &filter))
            .map(|(n, fields)| (did(n), fields))
            .collect();
        expected.sort_by(|a, b| a.0.cmp(&b.0));
        let dids: Vec<&Did> = listed.iter().map(|account| &account.did).collect();
        prop_assert_eq!(dids, expected.iter().map(|(did, _)| did).collect::<Vec<_>>());
        for (account, (_, fields)) in listed.iter().zip(&expected) {
            prop_assert_eq!(account.state, listed_state(fields));
            prop_assert_eq!(&account.pds, &fields.pds.map(origin));
            let reason = match account.state {
                AccountState::Inactive => Some("suspended"),
                AccountState::Invalid => Some("label"),
                AccountState::Unverifiable => Some(""),
                _ => None,
            };
            prop_assert_eq!(account.reason.as_deref(), reason);
        }

        let repos = all_pages(limit, |after| tx.list_repos(after, limit).unwrap());
        let mut expected: Vec<Did> = (0..)
            .zip(&accounts)
            .filter(|(_, fields)| {
                matches!(listed_state(fields), AccountState::Enrolled | AccountState::Invalid)
            })
            .map(|(n, _)| did(n))
            .collect();
        expected.sort();
        prop_assert_eq!(repos, expected);

        let mediators = all_pages(limit, |after| tx.list_mediators(after, limit).unwrap());
        let expected: Vec<(MediatorDid, u64)> = (0..3)
            .map(|n| {
                let enrolled = accounts.iter().filter(|fields| {
                    listed_state(fields) == AccountState::Enrolled && fields.mediators.contains(&n)
                });
                (mediator(n), enrolled.count() as u64)
            })
            .filter(|(_, recipients)| *recipients > 0)
            .collect();
        let found: Vec<_> = mediators.into_iter().map(|m| (m.did, m.recipients)).collect();
        prop_assert_eq!(found, expected);
    }
}

/// What is written meanwhile moves no account that stays to another page.
#[test]
fn accounts_that_stay_are_listed_once_while_others_come_and_go() {
    let conn = in_memory();
    let tx = Tx::new(&conn);
    let fields = Fields {
        pds: Some(1),
        is_active: true,
        state: PackageState::Present,
        mediators: vec![0, 0],
    };
    for n in 0..40 {
        put(&tx, n, &fields);
    }
    let mut step = 0;
    let listed = all_pages(3, |after| {
        // The odd ones come, and every fourth goes.
        put(&tx, 41 + 2 * step, &fields);
        tx.delete_entry(&did(4 * step)).unwrap();
        step += 1;
        tx.list_accounts(&AccountFilter::default(), after, 3)
            .unwrap()
    });
    let seen: BTreeSet<&Did> = listed.iter().map(|account| &account.did).collect();
    assert_eq!(seen.len(), listed.len());
    for n in (0..40).filter(|n| n % 4 > 0) {
        assert!(seen.contains(&did(n)), "{n}");
    }
}

#[test]
fn a_page_reads_a_bounded_number_of_rows_by_the_smallest_index() {
    let conn = in_memory();
    let tx = Tx::new(&conn);
    let fields = |pds, mediator| Fields {
        pds: Some(pds),
        is_active: true,
        state: PackageState::Present,
        mediators: vec![mediator],
    };
    for n in 0..60 {
        put(&tx, n, &fields(1, 1));
    }
    for n in 60..64 {
        put(&tx, n, &fields(2, 1));
    }
    let filter = |pds: Option<u64>, named: Option<u64>| AccountFilter {
        pds: pds.map(origin),
        mediator: named.map(mediator),
        state: Some(AccountState::Enrolled),
    };
    // Four of the accounts with the mediator are at this PDS, and the PDS has no others.
    let page = tx
        .list_accounts(&filter(Some(2), Some(1)), None, 9)
        .unwrap();
    assert_eq!((page.items.len(), page.next), (4, None));
    // No account there names this mediator, and no row is read to learn it.
    let page = tx
        .list_accounts(&filter(Some(1), Some(2)), None, 9)
        .unwrap();
    assert_eq!((page.items.len(), page.next), (0, None));
    // No index leads to the only account with both.
    put(&tx, 64, &fields(1, 3));
    for n in 65..125 {
        put(&tx, n, &fields(3, 3));
    }
    let mut pages = 0;
    let listed = all_pages(9, |after| {
        pages += 1;
        tx.list_accounts(&filter(Some(1), Some(3)), after, 9)
            .unwrap()
    });
    assert_eq!(listed.len(), 1);
    assert_eq!(pages, 61 / MAX_READ + 1);
}

#[test]
fn every_list_is_read_in_the_order_of_an_index() {
    let conn = in_memory();
    let plan = |sql: &str| -> Vec<String> {
        let mut plan = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let parameters = vec!["x"; plan.parameter_count()];
        let parameters = rusqlite::params_from_iter(parameters);
        let steps = plan.query_map(parameters, |row| row.get("detail")).unwrap();
        steps.map(Result::unwrap).collect()
    };
    let listed = |bound: &str| format!("SEARCH e USING COVERING INDEX entry_listed (did{bound}?)");
    let named = [
        "CORRELATED SCALAR SUBQUERY 1",
        "SEARCH n USING COVERING INDEX entry_mediator_mediator (mediator=? AND did=?)",
    ]
    .map(str::to_owned);
    let of = |step: &str| [&[step.to_owned(), listed("=")][..], &named].concat();
    for (sql, expected) in [
        (ALL, [&[listed(">")][..], &named].concat()),
        (
            OF_PDS,
            of("SEARCH o USING COVERING INDEX entry_pds_did (pds=? AND did>?)"),
        ),
        (
            IN_STATE,
            of("SEARCH o USING INDEX entry_account_state (account_state=? AND did>?)"),
        ),
        (
            OF_MEDIATOR,
            of("SEARCH m USING COVERING INDEX entry_mediator_mediator (mediator=? AND did>?)"),
        ),
        (
            MEDIATORS,
            vec![
                "SEARCH t USING PRIMARY KEY (kind=? AND name>?)".to_owned(),
                "SEARCH m USING INDEX sqlite_autoindex_mediator_1 (did=?) LEFT-JOIN".to_owned(),
            ],
        ),
    ] {
        assert_eq!(plan(sql), expected, "{sql}");
    }
}
