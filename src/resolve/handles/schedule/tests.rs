use super::*;
use crate::store::DuePosition;
use atcomm_proto::syntax::{Handle, Origin};

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const SECOND: Duration = Duration::from_secs(1);

fn did(n: usize) -> Did {
    let digit = |i: u32| char::from(b'a' + ((n >> (4 * i)) & 15) as u8);
    let tail: String = (0..16).map(digit).collect();
    Did::parse(&format!("did:plc:aaaaaaaa{tail}")).unwrap()
}

fn row(n: usize, domain: &str, pds: &str) -> DueHandle {
    DueHandle {
        did: did(n),
        claimed: Handle::parse(&format!("user{n}.{domain}")).unwrap(),
        pds: Some(Origin::parse(&format!("https://{pds}")).unwrap()),
        position: DuePosition::START,
    }
}

fn take_all(schedule: &mut Schedule) -> Vec<Did> {
    std::iter::from_fn(|| schedule.next(NOW)).collect()
}

#[test]
fn inv7_a_name_server_that_hangs_holds_the_places_of_its_own_domain() {
    let mut schedule = Schedule::default();
    for n in 0..2000 {
        let row = row(n, "mute.net", &format!("pds{n}.com"));
        schedule.offer(Class::News, &row, NOW);
        schedule.offer(Class::Age, &row, NOW);
    }
    let held = take_all(&mut schedule);
    assert_eq!(held.len(), PER_DOMAIN);
    assert!(schedule.is_dry(NOW));
    // All others have their turn at once, and as each ends the next.
    for n in 3000..3100 {
        let row = row(n, &format!("domain{n}.com"), &format!("pds{n}.com"));
        assert!(!schedule.offer(Class::Age, &row, NOW));
    }
    let mut checked = 0;
    loop {
        let next = take_all(&mut schedule);
        if next.is_empty() {
            break;
        }
        checked += next.len();
        next.iter().for_each(|did| schedule.ended(did, None, NOW));
    }
    assert_eq!(checked, 100);
}

#[test]
fn inv7_many_domains_that_hang_take_turns_with_the_one_that_does_not() {
    let mut schedule = Schedule::default();
    for n in 0..5000 {
        let row = row(
            n,
            &format!("mute{}.net", n / 10),
            &format!("pds{}.com", n % 7),
        );
        schedule.offer(Class::News, &row, NOW);
    }
    // In spite of the full table there is room for another group.
    let honest = row(9000, "example.com", "pds.example.com");
    assert!(!schedule.offer(Class::News, &honest, NOW));
    let mut turns = 0;
    'done: loop {
        let next = take_all(&mut schedule);
        assert!(!next.is_empty() && next.len() <= PER_CLASS);
        for did in &next {
            turns += 1;
            if *did == honest.did {
                break 'done;
            }
            schedule.ended(did, None, NOW);
        }
    }
    // One turn of each group before it.
    assert!(turns <= 5000, "{turns}");
    let waiting = &schedule.waiting[0];
    assert!(waiting.dids.len() <= MAX_WAITING);
    let lengths: usize = waiting.groups.values().map(VecDeque::len).sum();
    assert_eq!(
        (lengths, waiting.turns.len()),
        (waiting.dids.len(), waiting.groups.len())
    );
}

#[test]
fn inv7_no_class_pds_or_domain_takes_all_places() {
    let fill = |class, pdses: usize, domains: usize| {
        let mut schedule = Schedule::default();
        for n in 0..1000 {
            let domain = format!("domain{}.com", n % domains);
            let row = row(n, &domain, &format!("pds{}.com", n % pdses));
            schedule.offer(class, &row, NOW);
        }
        take_all(&mut schedule).len()
    };
    for class in Class::ALL {
        assert_eq!(fill(class, 1000, 1000), PER_CLASS);
        assert_eq!(fill(class, 1, 1000), PER_PDS);
        assert_eq!(fill(class, 1000, 1), PER_DOMAIN_AND_CLASS);
    }
}

#[test]
fn claims_of_others_names_share_no_turn_with_their_owners() {
    let mut schedule = Schedule::default();
    for n in 0..1000 {
        schedule.offer(Class::News, &row(n, "bsky.social", "pds.evil.net"), NOW);
    }
    let owner = row(5000, "bsky.social", "host.bsky.network");
    assert!(!schedule.offer(Class::News, &owner, NOW));
    assert!(take_all(&mut schedule).contains(&owner.did));
}

#[test]
fn a_domain_that_is_over_its_limits_waits_and_others_do_not() {
    let mut schedule = Schedule::default();
    for n in 0..20 {
        schedule.offer(Class::News, &row(n, "busy.com", "pds.com"), NOW);
    }
    let first = take_all(&mut schedule);
    for did in &first {
        schedule.ended(did, Some(SECOND), NOW);
    }
    assert_eq!((schedule.len(), schedule.next(NOW)), (0, None));
    schedule.offer(Class::News, &row(100, "other.com", "pds.com"), NOW);
    assert_eq!(take_all(&mut schedule), [did(100)]);
    let later = NOW.plus(SECOND);
    let next = schedule.next(later).unwrap();
    assert!(!first.contains(&next));
    // Through a long pause nothing is kept in memory.
    schedule.ended(&next, Some(SHORT_PAUSE * 2), later);
    assert!(schedule.waiting[0].dids.is_empty() && schedule.waiting[0].turns.is_empty());
    assert!(schedule.offer(Class::News, &row(3, "busy.com", "pds.com"), later));
    let after = later.plus(SHORT_PAUSE * 2);
    assert!(!schedule.offer(Class::News, &row(3, "busy.com", "pds.com"), after));
    assert_eq!(schedule.next(after), Some(did(3)));
}

#[test]
fn an_account_is_checked_once_at_a_time() {
    let mut schedule = Schedule::default();
    let one = row(1, "a.com", "pds.com");
    for class in Class::ALL {
        assert!(!schedule.offer(class, &one, NOW));
        assert!(!schedule.offer(class, &one, NOW));
    }
    assert_eq!(take_all(&mut schedule), [did(1)]);
    assert!(!schedule.offer(Class::News, &one, NOW));
    assert_eq!(schedule.next(NOW), None);
    schedule.ended(&did(1), None, NOW);
    assert_eq!(schedule.next(NOW), None);
    schedule.offer(Class::News, &one, NOW);
    assert_eq!(schedule.next(NOW), Some(did(1)));
    schedule.all_ended();
    assert_eq!(schedule.len(), 0);
}
