//! What a dataset of a year costs.

use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use atcomm::dataset::{self, DatasetRequest, DatasetSettings};
use testkit::bench::median;

/// Datasets of which the median is printed.
const ROUNDS: usize = 3;

/// Makes the dataset of all closed days of a filled file.
pub(crate) fn run(filled: &Path) {
    let request = DatasetRequest {
        since: None,
        until: None,
        settings: DatasetSettings::default(),
        origin: None,
    };
    let (mut times, mut limits, mut figures) = (Vec::new(), Vec::new(), (0, 0));
    for _ in 0..ROUNDS {
        let dir = tempfile::tempdir().unwrap();
        let began = Instant::now();
        let file = filled.join("directory.db");
        let made = dataset::write(&file, &dir.path().join("made"), &request, &mut || true).unwrap();
        times.push(began.elapsed().as_secs_f64());
        let bytes: u64 = made.files.iter().map(|file| file.bytes).sum();
        figures = (made.rows, bytes);
        let began = Instant::now();
        let mut copy = std::fs::File::create(dir.path().join("copy")).unwrap();
        copy.write_all(&vec![b'x'; usize::try_from(bytes).unwrap()])
            .unwrap();
        copy.sync_all().unwrap();
        limits.push(began.elapsed().as_secs_f64());
    }
    let (rows, bytes) = figures;
    println!(
        "dataset of a year, {rows} rows: {:.1} s (target under 30 s), {:.1} MiB (target under 150 MiB); \
         as many bytes written alone {:.2} s",
        median(&times),
        bytes as f64 / f64::from(1 << 20),
        median(&limits)
    );
}
