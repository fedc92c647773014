//! Operations that undo others.

use super::*;

/// A thief holds the lower key, migrates the account and replaces its keys; the higher key undoes
/// both.
fn recovered(minute: u32) -> TestLog {
    let (high, low, thief) = (p256(1), k256(2), k256(7));
    let first = low.sign(&operation(&[&high, &low], &k256(3), A, None));
    let stolen = low.sign(&operation(&[&thief], &thief, B, Some(&first)));
    let kept = thief.sign(&operation(&[&thief], &k256(8), B, Some(&stolen)));
    let back = high.sign(&operation(&[&high], &k256(3), A, Some(&first)));
    let mut log = TestLog::default();
    log.push(0, &first)
        .push(10, &stolen)
        .push(20, &kept)
        .push(minute, &back);
    log.nullify(1).nullify(2);
    log
}

#[test]
fn a_higher_key_undoes_what_a_lower_one_signed() {
    let log = recovered(30);
    let read = verified(&log);
    let keys: Vec<_> = read
        .states()
        .iter()
        .map(|state| &state.signing_key)
        .collect();
    assert_eq!(keys, [&Some(k256(3).public()); 2]);
    // A nullified migration does not count.
    assert_eq!(read.pre_migration_key(), None);
    // No operation can follow a nullified one.
    let mut on = log.clone();
    let undone = on.0[2]["operation"].clone();
    on.push(
        40,
        &k256(7).sign(&operation(&[&k256(7)], &k256(7), B, Some(&undone))),
    );
    assert_eq!(fault(&on), (4, Fault::Prev));
    // The log continues from the recovery.
    let mut on = log.clone();
    let back = on.0[3]["operation"].clone();
    on.push(
        40,
        &p256(1).sign(&operation(&[&p256(1)], &k256(4), B, Some(&back))),
    );
    let read = verified(&on);
    assert_eq!(read.states().len(), 3);
    assert_eq!(read.pre_migration_key(), Some((&k256(3).public(), at(40))));
}

#[test]
fn undoing_has_72_hours_from_the_first_that_is_undone() {
    let minutes = 72 * 60;
    verified(&recovered(10 + minutes));
    assert_eq!(fault(&recovered(11 + minutes)), (3, Fault::Late));
}

#[test]
fn an_equal_or_lower_key_undoes_nothing() {
    let (high, middle, low) = (p256(1), k256(2), p256(3));
    let rotation = [&high, &middle, &low];
    let first = high.sign(&operation(&rotation, &k256(3), A, None));
    let keys = [&high, &middle, &low];
    for (disputed, by) in keys.into_iter().enumerate() {
        for (claiming, key) in keys.into_iter().enumerate() {
            let mut log = TestLog::default();
            log.push(0, &first);
            log.push(
                1,
                &by.sign(&operation(&rotation, &k256(4), B, Some(&first))),
            );
            log.push(
                2,
                &key.sign(&operation(&rotation, &k256(5), A, Some(&first))),
            );
            log.nullify(1);
            if claiming < disputed {
                assert_eq!(verified(&log).states().len(), 2);
            } else {
                assert_eq!(fault(&log), (2, Fault::Signature));
            }
        }
    }
    // A key added by an operation that is to be undone has no authority.
    let mut log = TestLog::default();
    log.push(0, &first);
    log.push(
        1,
        &low.sign(&operation(&[&k256(9)], &k256(4), B, Some(&first))),
    );
    log.push(
        2,
        &k256(9).sign(&operation(&rotation, &k256(5), A, Some(&first))),
    )
    .nullify(1);
    assert_eq!(fault(&log), (2, Fault::Signature));
}

#[test]
fn what_undid_can_be_undone_by_a_still_higher_key() {
    let (high, middle, low) = (p256(1), k256(2), p256(3));
    let rotation = [&high, &middle, &low];
    let first = high.sign(&operation(&rotation, &k256(3), A, None));
    let sign = |key: &TestKey, pds| key.sign(&operation(&rotation, &k256(4), pds, Some(&first)));
    let mut log = TestLog::default();
    log.push(0, &first)
        .push(1, &sign(&low, B))
        .push(2, &sign(&middle, B))
        .push(3, &sign(&high, A));
    log.nullify(1).nullify(2);
    assert_eq!(verified(&log).states().len(), 2);
    // The lower keys cannot return after the recovery.
    log.nullify(3).push(4, &sign(&middle, A));
    assert_eq!(fault(&log), (4, Fault::Signature));
}

#[test]
fn marks_must_be_what_the_operations_say() {
    for log in [history().0, recovered(30)] {
        for index in 0..log.0.len() {
            let mut wrong = log.clone();
            let is = wrong.0[index]["nullified"].as_bool().unwrap();
            wrong.0[index]["nullified"] = json!(!is);
            assert_eq!(fault(&wrong), (index, Fault::Nullified));
        }
    }
    // Without the recovery, the marks of the log have no reason.
    let mut cut = recovered(30);
    cut.0.pop();
    assert_eq!(fault(&cut), (1, Fault::Nullified));
    // Without the nullified operations the log differs from the directory's, but contains nothing
    // false.
    let mut short = recovered(30);
    short.0.drain(1..3);
    assert_eq!(verified(&short).states(), verified(&recovered(30)).states());
}
