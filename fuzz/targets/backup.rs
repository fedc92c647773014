//! A backup file: the age file, and the document in it.
#![no_main]

use atcomm_client::wallet::backup::{Backup, fuzzing};
use libfuzzer_sys::fuzz_target;

const PASSPHRASE: &str = "correct horse battery";

fuzz_target!(|data: &[u8]| {
    let _ = Backup::open(data, PASSPHRASE);
    if let Ok(backup) = fuzzing::read(data) {
        let file = backup
            .seal(PASSPHRASE)
            .expect("what was read can be sealed");
        let again = Backup::open(&file, PASSPHRASE).expect("what was sealed can be opened");
        assert_eq!(again.accounts.len(), backup.accounts.len());
    }
});
