//! Frequent queries, and queries of large tables, use indexes and sort nothing.

use rusqlite::{Connection, StatementStatus};

use super::super::super::schema;
use super::super::{accounts, outbox, purge, queue, shares};
use super::*;

/// The plan of a query, one line for each step.
fn plan(conn: &Connection, sql: &str) -> Vec<String> {
    let mut query = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    for n in 1..=query.parameter_count() {
        query.raw_bind_parameter(n, 1).unwrap();
    }
    let mut rows = query.raw_query();
    let mut lines = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        lines.push(row.get::<_, String>("detail").unwrap());
    }
    lines
}

#[test]
fn queries_use_their_indexes() {
    let conn = Connection::open_in_memory().unwrap();
    schema::migrate(&conn, schema::MAILBOX.migrations).unwrap();
    for (sql, index) in [
        (queue::OF_ACCOUNT, "INDEX recipient_account"),
        (queue::OF_RECIPIENT, "INTEGER PRIMARY KEY"),
        (queue::STATUS, "COVERING INDEX message_queue (recipient=?)"),
        (
            queue::CHOOSE,
            "COVERING INDEX message_queue (recipient=? AND id>?)",
        ),
        (queue::ROOM, "SEARCH r USING INTEGER PRIMARY KEY"),
        (queue::ROOM, "SEARCH a USING INTEGER PRIMARY KEY"),
        (
            queue::ROOM,
            "SEARCH w USING PRIMARY KEY (recipient=? AND sender_group=?)",
        ),
        (queue::READ, "INTEGER PRIMARY KEY"),
        (
            queue::PROLONG,
            "INDEX message_hash (recipient=? AND hash=?)",
        ),
        (queue::ACK, "INDEX message_hash (recipient=? AND hash=?)"),
        (queue::COUNTS, "INDEX recipient_account (account=?)"),
        (queue::HASHES, "COVERING INDEX message_hash (recipient=?)"),
        (queue::DELAYED, "INDEX message_delayed"),
        (queue::EXPIRED, "INDEX message_expiry"),
        (
            outbox::ROOM,
            "SEARCH m USING PRIMARY KEY (scope=? AND sender_group=?)",
        ),
        (
            outbox::ROOM,
            "SEARCH dw USING PRIMARY KEY (scope=? AND sender_group=?)",
        ),
        (shares::HOSTS, "INDEX claim_peer (peer=?)"),
        (shares::SENDERS, "PRIMARY KEY"),
        (shares::RECIPIENTS, "INTEGER PRIMARY KEY (rowid>?)"),
        (outbox::WAITING, "INDEX destination_waiting (did>?)"),
        (
            outbox::WAITING,
            "COVERING INDEX outbound_due (destination=?)",
        ),
        (outbox::EXPIRED, "INDEX outbound_expiry (expires_at<?)"),
        (
            outbox::DUE,
            "COVERING INDEX outbound_due (destination=? AND next_at<?)",
        ),
        (outbox::OUTCOMES, "INDEX destination_last"),
        (outbox::PRUNE, "INDEX destination_last"),
        (
            accounts::PROVISIONAL_OF_GROUP,
            "COVERING INDEX account_group",
        ),
        (accounts::PROVISIONAL, "COVERING INDEX account_provisional"),
        (accounts::LAPSED, "INDEX account_provisional"),
        (accounts::IDLE, "INDEX account_seen"),
        (accounts::RECIPIENTS, "INDEX recipient_account (account=?)"),
        (accounts::READER, "SEARCH a USING INTEGER PRIMARY KEY"),
        (accounts::CLAIM, "INDEX claim_peer (peer=? AND state=?)"),
        (
            accounts::CLAIMS_BEFORE,
            "INDEX claim_age (state=? AND since<?)",
        ),
        (accounts::DROP_IDLE, "INDEX recipient_idle"),
        (purge::DENIED, "INDEX recipient_denied"),
        (
            purge::CLAIM_OF_OTHERS,
            "INDEX claim_peer (peer=? AND state=?)",
        ),
        (
            purge::CHOOSE_PURGED,
            "COVERING INDEX message_queue (recipient=? AND id<?)",
        ),
        (
            purge::WAITING_UP_TO,
            "COVERING INDEX message_queue (recipient=? AND id<?)",
        ),
    ] {
        let plan = plan(&conn, sql);
        assert!(
            plan.iter().any(|line| line.contains(index)),
            "{sql}: {plan:?}"
        );
        for line in &plan {
            // Only an index in the wanted order, or a partial one, may be scanned from its end.
            let scan = line.starts_with("SCAN") && !line.contains("INDEX");
            assert!(!scan && !line.contains("TEMP B-TREE"), "{sql}: {plan:?}");
        }
    }
}

#[test]
fn the_check_of_plans_sees_what_it_forbids() {
    let conn = Connection::open_in_memory().unwrap();
    schema::migrate(&conn, schema::MAILBOX.migrations).unwrap();
    let sorted = plan(&conn, "SELECT * FROM message ORDER BY size");
    assert!(sorted.contains(&"SCAN message".to_owned()));
    assert!(sorted.iter().any(|line| line.contains("TEMP B-TREE")));
}

#[tokio::test]
async fn a_statement_is_planned_once() {
    let f = open();
    let (a, ids) = f.account("did:peer:a", &["did:peer:x"]).await;
    let recipient = ids[0];
    for text in ["1", "2", "3"] {
        f.push(recipient, text).await;
        f.texts(Queue::Account(a), 0, 9, 99).await;
    }
    f.write(move |tx| {
        let mut again = Vec::new();
        for sql in [queue::ROOM, queue::PROLONG, queue::ACK, queue::EXPIRED] {
            // What is bound changes what a partial index could be good for.
            for n in 0..3_i64 {
                let mut statement = tx.conn().prepare_cached(sql)?;
                for parameter in 1..=statement.parameter_count() {
                    statement.raw_bind_parameter(parameter, n)?;
                }
                drop(statement.raw_query().next());
                again.push(statement.get_status(StatementStatus::RePrepare));
            }
        }
        assert_eq!(again, [0; 12]);
        Ok(())
    })
    .await;
}
