//! Rows as each schema version wrote them.

use super::super::copy::StoreFile;

/// The account that every directory has.
pub(super) const ALICE: &str = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";

/// Returns statements that write rows in the form of a version, beside those of the versions before.
pub(super) fn of(file: StoreFile, version: usize) -> &'static str {
    let rows: &[(usize, &str)] = match file {
        StoreFile::Mailbox => &MAILBOX,
        StoreFile::Directory => &DIRECTORY,
    };
    let found = rows.iter().find(|(of, _)| *of == version);
    found.map_or("", |(_, rows)| rows)
}

const MAILBOX: [(usize, &str); 6] = [
    (
        1,
        "
INSERT INTO account (did, long, granted_at, provisional_until, address_group, seen_at) VALUES
  ('did:peer:2.EzAlice', 'did:peer:2.EzAlice', 1764000000000, NULL, NULL, 1764000060000),
  ('did:peer:2.EzBob', 'did:peer:2.EzBob', 1764000000001, 1764000900000, x'7f000001', 1764000000000);
INSERT INTO recipient (did, account) VALUES
  ('did:peer:2.EzAlice', 1), ('did:peer:2.EzBob', 2), ('did:peer:2.EzCarol', NULL);
INSERT INTO claim VALUES
  ('did:plc:ewvi7nxzyoun6zhxrhs64oiz', 'did:peer:2.EzAlice', 'current', 1764000000000),
  ('did:plc:ewvi7nxzyoun6zhxrhs64oiz', 'did:peer:2.EzOld', 'replaced', 1764000000500);
INSERT INTO message (recipient, hash, size, stored_at, available_at, expires_at, body) VALUES
  (1, randomblob(32), 11, 1764000001000, 1764000001000, 1765000000000, CAST('first words' AS BLOB)),
  (3, randomblob(32), 12, 1764000002000, 1764000003000, 1765000000000, CAST('second words' AS BLOB));
INSERT INTO outbound (destination, route, hash, size, sender, thread, next_at, created_at,
    expires_at, body) VALUES
  ('did:web:mail.example.org', '{\"next\":\"did:peer:2.EzDave\"}', randomblob(32), 9,
    'did:peer:2.EzAlice', 'thread-1', 1764000004000, 1764000004000, 1764090000000,
    CAST('elsewhere' AS BLOB));
INSERT INTO replay_change (hash, seen_at) VALUES (randomblob(16), 1764000001000);
INSERT INTO replay_question (hash, seen_at) VALUES (randomblob(16), 1764000001000);
INSERT INTO meta VALUES ('change_position', '7');
",
    ),
    (
        2,
        "
INSERT INTO recipient (did, account, closed_at) VALUES ('did:peer:2.EzLeft', 2, 1764000005000);
",
    ),
    (
        4,
        "
INSERT INTO outbound (destination, route, hash, size, sender, thread, next_at, created_at,
    expires_at, body, sender_group, domain, opened, extra) VALUES
  ('did:web:mail.example.net', '{\"next\":\"did:peer:2.EzErin\"}', randomblob(32), 7,
    NULL, NULL, 1764000006000, 1764000006000, 1764090000000, CAST('shared!' AS BLOB),
    x'0102030405060708090a0b0c0d0e0f10', 'example.net', 1, 40);
",
    ),
    (
        5,
        "
INSERT INTO claimant VALUES ('did:plc:ewvi7nxzyoun6zhxrhs64oiz', 'example.com', 1);
",
    ),
    (
        6,
        "
INSERT INTO meta VALUES ('share_key', 'c2VjcmV0');
",
    ),
    (
        7,
        "
UPDATE account SET dates_changes = 1 WHERE id = 1;
INSERT INTO recipient (did, account, denied) VALUES ('did:peer:2.EzDenied', NULL, 1);
",
    ),
];

const DIRECTORY: [(usize, &str); 9] = [
    (
        1,
        "
INSERT INTO entry (did, handle, pds, signing_key, status, state, reason, detail, rev, commit_cid, cid,
    record, proof, proof_pds, proof_key, identity_key, peer, regressed, source, method, observed_at,
    proved_at, checked_at, next_check_at, failures, change_seq) VALUES
  ('did:plc:ewvi7nxzyoun6zhxrhs64oiz', 'alice.example.com', 'https://pds.example.com',
    'did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme', 'active', 'present', NULL, NULL,
    '3jzfcijpj2z2a', 'bafyreie5737gdxlw5i64vzichcalba3z2v5n6icifvx5xytvske7mr3hpm',
    'bafyreie5737gdxlw5i64vzichcalba3z2v5n6icifvx5xytvske7mr3hpm', x'a0', x'0102030405',
    'https://pds.example.com', 'did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme',
    'did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme', 'did:peer:2.EzAlice', 0, 'pds',
    'getRecord', 1764000000000, 1764000000000, 1764000000000, 1764100000000, 0, 1),
  ('did:plc:z72i7hdynmk6r22z27h6tvur', NULL, 'https://pds.example.org', NULL, 'deactivated',
    'removed', NULL, NULL, '3jzfcijpj2z2b', NULL, NULL, NULL, x'0a0b0c',
    'https://pds.example.org', NULL, NULL, NULL, 0, 'relay', 'getRecord', 1764000001000,
    1764000001000, 1764000001000, 1764100001000, 2, 2);
INSERT INTO entry_mediator VALUES
  ('did:plc:ewvi7nxzyoun6zhxrhs64oiz', 0, 'did:web:mail.example.com'),
  ('did:plc:ewvi7nxzyoun6zhxrhs64oiz', 1, 'did:web:backup.example.org');
INSERT INTO mediator VALUES
  ('did:web:mail.example.com', '{\"did\":\"did:web:mail.example.com\"}', 1764000000000, 1764003600000, 0);
INSERT INTO change (did, kind, rev, cid, peer, mediators, key, detail, seen_at, proof) VALUES
  ('did:plc:ewvi7nxzyoun6zhxrhs64oiz', 'package', '3jzfcijpj2z2a',
    'bafyreie5737gdxlw5i64vzichcalba3z2v5n6icifvx5xytvske7mr3hpm', 'did:peer:2.EzAlice',
    '[\"did:web:mail.example.com\",\"did:web:backup.example.org\"]',
    'did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme', NULL, 1764000000000, NULL),
  ('did:plc:z72i7hdynmk6r22z27h6tvur', 'removed', '3jzfcijpj2z2b', NULL, NULL, NULL, NULL, NULL,
    1764000001000, x'0d0e');
INSERT INTO pending (did, reason, hint, hint_pds, not_before, attempts, generation, since, listed) VALUES
  ('did:plc:44ybard66vv44zksje25o7dz', 'pds', NULL, NULL, 1764000002000, 1, 3, 1764000002000, 0);
INSERT INTO cursor VALUES ('pds https://pds.example.com', 4711, NULL, 1764000003000);
INSERT INTO walk (source, position, seen, started_at, done_at) VALUES
  ('pds https://pds.example.com', NULL, 12, 1764000000000, 1764000003000);
INSERT INTO evidence (did, rev, pds, key, seen_at, proof) VALUES
  ('did:plc:ewvi7nxzyoun6zhxrhs64oiz', '3jzfcijpj2z22', 'https://pds.example.com',
    'did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme', 1764000004000, x'0f');
",
    ),
    (
        4,
        "
INSERT INTO gap (source, reason, since, opened_at, pds, covered, position, last, marked) VALUES
  ('pds https://pds.example.com', 'outage', 1764000003000, 1764000005000,
    'https://pds.example.com', '[]', 0, 2, 0);
",
    ),
    (
        9,
        "
INSERT INTO head VALUES ('did:plc:ewvi7nxzyoun6zhxrhs64oiz', '3jzfcijpj2z2a', x'01711220', NULL);
",
    ),
    (
        10,
        "
INSERT INTO takedown VALUES ('did:plc:z72i7hdynmk6r22z27h6tvur', 'relay https://relay.example.com', 'takendown');
",
    ),
    (
        12,
        "
INSERT INTO change_log_start VALUES (1000, 2);
INSERT INTO consumer VALUES ('archive', 2, 1764000006000);
",
    ),
    (
        14,
        "
INSERT INTO change (did, kind, rev, peer, seen_at, status, state, handle, pds) VALUES
  ('did:plc:ewvi7nxzyoun6zhxrhs64oiz', 'handle', NULL, NULL, 1764000007000, 'active', 'present',
    'alice.example.com', 'https://pds.example.com');
",
    ),
    (
        15,
        "
UPDATE pending SET failure = 'unreachable';
",
    ),
    (
        16,
        "
INSERT INTO daily (day, enrolled, new, begun) VALUES ('2025-11-24', 1, 1, 1);
INSERT INTO daily_group (kind, name, day, accounts, came, went) VALUES
  ('host', 'example.com', '2025-11-24', 1, 1, 0);
",
    ),
    (
        18,
        "
INSERT INTO daily_source (day, source, gaps, position) VALUES
  ('2025-11-24', 'pds https://pds.example.com', 1, 4711);
",
    ),
];
