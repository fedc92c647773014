//! Writers that are killed, and disks without room. The writer is this test binary, started again
//! as a process of its own.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use super::*;

/// Where the writer finds its wallet.
const HOME: &str = "ATCOMM_TEST_WALLET";

/// Rounds of killing.
const ROUNDS: u64 = 60;

/// This test binary as the writer, by a shell that first does `limit`.
fn writer(home: &Path, limit: &str) -> Child {
    Command::new("sh")
        .arg("-c")
        .arg(format!("{limit}\nexec \"$0\" \"$@\""))
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "wallet::tests::interrupted::write",
            "--ignored",
            "--nocapture",
        ])
        .env(HOME, home)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The enrolment of a number.
fn numbered(number: u64) -> Enrolment {
    let mut enrolment = enrolment("alice");
    // As long as it gets, so that there is time to be killed in.
    enrolment.label = Some(format!("{number} {}", "x".repeat(60_000)));
    enrolment
}

fn number_of(enrolment: &Enrolment) -> u64 {
    let label = enrolment.label.as_deref().unwrap();
    let (number, rest) = label.split_once(' ').unwrap();
    assert_eq!(rest.len(), 60_000);
    number.parse().unwrap()
}

/// Writes one number after the other everywhere and says each when it is done.
#[test]
#[ignore = "the other half of the tests below"]
fn write() {
    let Some(home) = std::env::var_os(HOME) else {
        return;
    };
    let wallet = Wallet::open(Path::new(&home)).unwrap();
    let store = wallet.account_store(&did("alice"));
    let known = store.enrolment().unwrap();
    let first = known.as_ref().map_or(0, |known| number_of(known) + 1);
    for number in first.. {
        let id = number.to_string();
        let steps = || -> Result<(), WalletError> {
            store.save(&numbered(number))?;
            println!("kept {number}");
            store.save_message(&kept(Some("did:peer:2.Ez"), &id, 1))?;
            println!("message {number}");
            let mut pin = pin("bob");
            pin.last_seen = at(i64::try_from(number).unwrap());
            wallet.save_pin(&pin)?;
            println!("pin {number}");
            store.save_sent("always the same", &number)?;
            println!("sent {number}");
            Ok(())
        };
        if let Err(error) = steps() {
            println!("error {error} out of space: {}", error.is_out_of_space());
            return;
        }
    }
}

/// What the wallet has to hold after the writer printed this: each number, or the next.
#[derive(Default, Debug)]
struct Printed {
    kept: Option<u64>,
    message: Option<u64>,
    pin: Option<u64>,
    sent: Option<u64>,
    error: Option<String>,
}

impl Printed {
    fn hear(&mut self, out: impl std::io::Read) {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            self.note(&line);
        }
    }

    fn note(&mut self, line: &str) {
        let Some((what, rest)) = line.split_once(' ') else {
            return;
        };
        let number = rest.parse().ok();
        match what {
            "kept" => self.kept = number,
            "message" => self.message = number,
            "pin" => self.pin = number,
            "sent" => self.sent = number,
            "error" => self.error = Some(rest.to_owned()),
            _ => {}
        }
    }

    #[track_caller]
    fn check(&self, home: &Path) {
        let fits = |printed: Option<u64>, found: Option<u64>| match (printed, found) {
            (None, found) => found.is_none_or(|found| found == 0),
            (Some(printed), Some(found)) => found == printed || found == printed + 1,
            (Some(_), None) => false,
        };
        let wallet = Wallet::open(home).unwrap();
        let store = wallet.account_store(&did("alice"));
        let enrolment = store.enrolment().unwrap();
        assert!(
            fits(self.kept, enrolment.as_ref().map(number_of)),
            "{self:?}"
        );
        let pins = wallet.contacts().unwrap();
        let pin = pins
            .first()
            .map(|pin| u64::try_from(pin.last_seen.millis()).unwrap());
        assert!(fits(self.pin, pin), "{self:?} {pin:?}");
        let sent = store.sent::<u64>().unwrap();
        assert!(
            sent.len() < 2 && fits(self.sent, sent.first().copied()),
            "{self:?} {sent:?}"
        );
        // Every message that was printed to be kept is there; of one more there may be no word yet.
        let messages = messages::messages(&store);
        let mut numbers: Vec<u64> = messages.iter().map(|m| m.id.parse().unwrap()).collect();
        numbers.sort_unstable();
        let wanted: Vec<u64> = self.message.map_or(Vec::new(), |last| (0..=last).collect());
        numbers.truncate(wanted.len());
        assert_eq!(numbers, wanted);
        assert!(messages.len() <= wanted.len() + 1);
    }
}

#[test]
fn inv10_a_killed_writer_leaves_the_old_or_the_new() {
    let dir = TempDir::new().unwrap();
    let home = dir.path().join("wallet");
    let mut printed = Printed::default();
    for round in 0..ROUNDS {
        let mut child = writer(&home, "");
        let mut out = BufReader::new(child.stdout.take().unwrap());
        // Until it is at work, however slow the machine is; then a time that is another one in
        // each round.
        let before = printed.kept;
        while printed.kept == before {
            let mut line = String::new();
            assert_ne!(out.read_line(&mut line).unwrap(), 0, "it ended");
            printed.note(line.trim_end());
        }
        std::thread::sleep(Duration::from_micros(round * 7919 % 40_000));
        child.kill().unwrap();
        child.wait().unwrap();
        printed.hear(out);
        printed.check(&home);
        assert_eq!(printed.error, None);
        // The next round goes on from what is there, whether it was printed or not.
        let wallet = Wallet::open(&home).unwrap();
        let store = wallet.account_store(&did("alice"));
        if let Some(enrolment) = store.enrolment().unwrap() {
            // A round that was killed in between leaves its number without the rest.
            catch_up(&wallet, number_of(&enrolment), &mut printed);
        }
    }
    assert!(printed.kept.unwrap() >= ROUNDS - 1, "{printed:?}");
}

/// Does what the writer was killed before.
fn catch_up(wallet: &Wallet, number: u64, printed: &mut Printed) {
    let store = wallet.account_store(&did("alice"));
    store
        .save_message(&kept(Some("did:peer:2.Ez"), &number.to_string(), 1))
        .unwrap();
    let mut pin = pin("bob");
    pin.last_seen = at(i64::try_from(number).unwrap());
    wallet.save_pin(&pin).unwrap();
    store.save_sent("always the same", &number).unwrap();
    *printed = Printed {
        kept: Some(number),
        message: Some(number),
        pin: Some(number),
        sent: Some(number),
        error: None,
    };
}

#[test]
fn without_room_nothing_is_half_written() {
    let dir = TempDir::new().unwrap();
    let home = dir.path().join("wallet");
    // Room for the smaller files only (in blocks of 512 bytes).
    let wallet = Wallet::open(&home).unwrap();
    wallet
        .account_store(&did("alice"))
        .save(&numbered(7))
        .unwrap();
    let child = writer(&home, "trap '' XFSZ; ulimit -f 60");
    let output = child.wait_with_output().unwrap();
    let mut printed = Printed::default();
    printed.hear(&output.stdout[..]);
    let error = printed.error.expect("an error");
    assert!(
        error.starts_with("cannot write ") && error.contains("enrolment.json"),
        "{error}"
    );
    assert!(error.ends_with("out of space: true"), "{error}");
    let enrolment = wallet
        .account_store(&did("alice"))
        .enrolment()
        .unwrap()
        .unwrap();
    assert_eq!(number_of(&enrolment), 7);
    assert_eq!(std::fs::read_dir(home.join("tmp")).unwrap().count(), 0);
    // Not a byte: the first write of all.
    let empty = dir.path().join("empty");
    let output = writer(&empty, "trap '' XFSZ; ulimit -f 0")
        .wait_with_output()
        .unwrap();
    let mut printed = Printed::default();
    printed.hear(&output.stdout[..]);
    assert!(
        printed.error.is_some() && printed.kept.is_none(),
        "{printed:?}"
    );
    printed.check(&empty);
}
